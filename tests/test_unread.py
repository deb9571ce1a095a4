"""A key that the user set and that nothing would read ends the run before it begins."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from peftune.cli import report_errors, train_recipe
from peftune.compatibility import check_recipe
from peftune.engines.launch import read_launch
from peftune.errors import RecipeError
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.plan import make_plan
from peftune.recipe import Recipe, load_recipe
from peftune.resolved import resolved_yaml, set_by_user
from peftune.unread import (
    BY_DATA,
    BY_MODEL,
    BY_PLAN,
    BY_RECIPE,
    Learning,
    Opened,
    refuse_unread,
)
from tests.conftest import write_recipe

PLAIN = "this task learns plain text without a prompt; remove it."
TAGGED = "this task reads words and their tags as they are; remove it."
ASKED = "this task reads a question and its context as they are; remove it."
NO_LOSS = "no step computes a validation loss; set train.eval_steps, or remove it."
ONE_OF_TWO = "names the rows; remove one of the two."
NO_LABELS = "this task learns no labels; remove it."
FOR = "it is for task {}; remove it."
MIXED = "data.path=null", "data.mixture=[{train: a.jsonl}]"
UNREAD: list[tuple[str, tuple[str, ...], str]] = [
    ("qa", ("model.revision=main",), "a local folder has no branches, tags or commits; remove it."),
    ("qa", (*MIXED, "data.columns={prompt: a}"), "each source of data.mixture says it for itself, and "
     "there are no other files; set it in the entries of data.mixture."),
    ("qa", (*MIXED, "data.format=text"), "each source of data.mixture says it for itself, and there "
     "are no other files; set it in the entries of data.mixture."),
    ("qa", ("data.prompt_template='{a}?'", "data.columns.prompt=a"),
     "data.prompt_template writes the prompt and does not name {prompt}; remove it."),
    ("qa", ("train.eval_steps=1", "data.validation=v.jsonl", "data.splits.validation=dev"),
     f"data.validation {ONE_OF_TWO}"),
    ("qa", ("data.test=t.jsonl", "data.splits.test=dev"), f"data.test {ONE_OF_TWO}"),
    ("qa", ("data.splits.validation=dev",), NO_LOSS),
    ("qa", ("data.validation=v.jsonl",), NO_LOSS),
    ("qa", ("data.validation_fraction=0.1",), NO_LOSS),
    ("qa", ("data.max_validation_samples=2",), NO_LOSS),
    ("extract", ("data.labels=[O]",), NO_LABELS),
    ("tag", ("data.problem_type=regression",), FOR.format("classify")),
    ("chat", ("data.prompt_template='{messages}'",),
     "this task learns conversations, which the chat template writes; remove it."),
    ("text", ("data.prompt_template='{text}'",), PLAIN),
    ("text", ("data.chat_template=tokenizer",), PLAIN),
    ("tag", ("data.prompt_template='{words}'",), TAGGED),
    ("tag", ("data.source_language=de_DE",), TAGGED),
    ("extract", ("data.chat_template=tokenizer",), ASKED),
    ("extract", ("data.target_language=de_DE",), ASKED),
    ("classify", ("data.chat_template=tokenizer",), "a classifier reads plain text; remove it."),
    *((task, ("data.train_on=all",), "this task's rows have no parts to choose from; remove it.")
      for task in ("text", "tag", "extract", "classify")),
    ("qa", ("data.mlm_probability=0.2",), FOR.format("text")),
    *(("extract", (f"data.overlong={policy}",), "this task reads long contexts in windows that overlap "
       "by data.doc_stride tokens; remove it.") for policy in ("error", "drop", "split")),
    ("qa", ("data.doc_stride=64",), FOR.format("extract")),
    ("qa", ("data.doc_stride=128",), FOR.format("extract")),
    ("qa", ("data.accept.history=0.1",), "no chat template writes these rows; remove it."),
    ("chat", ("data.accept.unknown_label=0.1",), NO_LABELS),
    ("classify", ("data.accept.untokenized_word=0.1",), FOR.format("tag")),
    ("classify", ("data.accept.cut_answer=0.1",), FOR.format("extract")),
    ("tag", ("data.accept.no_target=0.1",), "a label is always something to learn; remove it."),
    *((task, (*policy, "data.accept.overlong=0.1"), "no row is refused for its length in this run; "
       "remove it.") for task, policy in (
        ("extract", ()), ("chat", ("data.overlong=drop",)), ("tag", ("data.overlong=split",)),
        ("classify", ("data.overlong=truncate_prompt",)))),
    ("chat", ("adapter={method: ia3}", "train.weight_decay=0.1"),
     "(IA)³ trains vectors, which have no weight decay; remove it."),
    ("qa", ("train.warmup_steps=2",),
     "the run ends before the warmup does; lower it, or raise train.max_steps."),
    ("qa", ("train.load_best_model_at_end=true",), NO_LOSS),
    ("qa", ("train.early_stopping_patience=2",), NO_LOSS),
    ("qa", ("train.save_total_limit=2",),
     "no checkpoints are saved; set train.save_steps, or remove it."),
    ("qa", ("train.run_name=night",), "no tracker gets it; set train.report_to, or remove it."),
    *((task, ("evaluation.max_new_tokens=64",), "no text is generated in this task; remove it.")
      for task in ("text", "tag", "extract", "classify")),
    ("classify", ("evaluation.num_beams=2",), "no text is generated in this task; remove it."),
    ("text", ("evaluation.shown_samples=3",),
     "the test rows of this task have no answers to show; remove it."),
    ("tag", ("evaluation.max_answer_tokens=5",), FOR.format("extract")),
    ("qa", ("quantization.method=bnb-nf4", "export.merge=false", "export.merge_base=dequantized"),
     "no merged model is written; set export.merge: true, or remove it and give it to `peftune merge`."),
    ("qa", ("export.merge_base=dequantized",),
     "it is for quantized runs, and without quantization there is one base only; remove it."),
]  # fmt: skip
"""Task, overrides of which the last one is refused, and the reason."""


def bare(task: str, model: Path, folder: Path) -> Path:
    """A recipe with the required keys alone."""
    tree = {
        "task": task,
        "output_dir": str(folder / "run"),
        "model": {"model_name_or_path": str(model)},
        "data": {"path": str(folder)},
        "adapter": {"method": "lora"},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": 1.0e-3},
    }
    return write_recipe(folder, tree)


def refusal(recipe: Recipe, rules: Any, known: Any) -> str:
    with pytest.raises(RecipeError) as refused:
        refuse_unread(recipe, rules, known)
    return str(refused.value)


@pytest.mark.parametrize(("task", "overrides", "reason"), UNREAD)
def test_what_the_recipe_tells(
    task: str, overrides: tuple[str, ...], reason: str, model_folder: Path, tmp_path: Path
) -> None:
    path = bare(task, model_folder, tmp_path)
    recipe = load_recipe(path, list(overrides))
    key = overrides[-1].partition("=")[0]
    with pytest.raises(RecipeError) as refused:
        check_recipe(recipe, read_launch({}))
    lines = str(refused.value).splitlines()
    assert any(line.startswith(f"{path}: {key}: ") and line.endswith(reason) for line in lines), (
        lines
    )


def test_every_rule_of_the_recipe_has_a_case(model_folder: Path, tmp_path: Path) -> None:
    recipes = [
        load_recipe(bare(task, model_folder, tmp_path), list(overrides))
        for task, overrides, _ in UNREAD
    ]
    fired = {rule.keys for rule in BY_RECIPE for recipe in recipes if rule.when(recipe)}
    assert fired == {rule.keys for rule in BY_RECIPE}


def test_a_refusal_names_the_line_and_the_value_as_typed(
    model_folder: Path, tmp_path: Path
) -> None:
    path = bare("text", model_folder, tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(
        f"{text}evaluation:\n  num_beams: 4\n  max_answer_tokens: 7\n", encoding="utf-8"
    )
    line = len(text.splitlines()) + 2
    recipe = load_recipe(path)
    assert refusal(recipe, BY_RECIPE, recipe).splitlines() == [
        f"{path}:{line}: evaluation.num_beams: 4: no text is generated in this task; remove it.",
        f"{path}:{line + 1}: evaluation.max_answer_tokens: 7: it is for task extract; remove it.",
    ]


@pytest.mark.parametrize(
    "override",
    [
        "data.labels=[]",
        "data.prompt_template=null",
        "train.load_best_model_at_end=false",
        "evaluation.shown_samples=0",
    ],
)
def test_asking_for_nothing_is_no_mistake(
    override: str, model_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(bare("text", model_folder, tmp_path), [override])
    refuse_unread(recipe, BY_RECIPE, recipe)


@pytest.mark.parametrize(
    ("key", "value", "splits"),
    [
        ("train.eval_steps", 5, {"train", "test"}),
        ("data.max_test_samples", 5, {"train", "validation"}),
        ("evaluation.max_new_tokens", 5, {"train"}),
        ("evaluation.num_beams", 5, {"train"}),
        ("evaluation.max_answer_tokens", 5, {"train"}),
        ("evaluation.shown_samples", 5, {"train"}),
        ("train.per_device_eval_batch_size", 5, {"train", "validation"}),
        ("data.accept.overlap", 0.5, {"train"}),
    ],
)
def test_what_the_data_tells(
    key: str, value: float, splits: Any, model_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(bare("qa", model_folder, tmp_path), [f"{key}={value}"])
    found = refusal(recipe, BY_DATA, Opened(recipe, frozenset(splits)))
    assert f" {key}: {value}: " in found
    whole = frozenset({"train", "validation", "test"})
    refuse_unread(recipe, BY_DATA, Opened(recipe, whole))  # type: ignore[arg-type]


def test_rows_that_are_set_aside_are_validation_rows(model_folder: Path, tmp_path: Path) -> None:
    overrides = ["train.eval_steps=1", "data.validation_fraction=0.1", "data.accept.overlap=0.1"]
    recipe = load_recipe(bare("qa", model_folder, tmp_path), overrides)
    refuse_unread(recipe, BY_DATA, Opened(recipe, frozenset({"train"})))


@pytest.mark.parametrize(
    ("key", "value", "objective", "fits"),
    [
        ("data.chat_template", "tokenizer", "seq2seq", "causal"),
        ("data.train_on", "completion", "seq2seq", "causal"),
        ("data.mlm_probability", 0.5, "causal", "masked"),
        ("data.labels", "[a, b]", "value", "label"),
        ("train.label_smoothing_factor", 0.5, "labels", "label"),
        ("train.label_smoothing_factor", 0.5, "value", "tags"),
        ("train.label_smoothing_factor", 0.5, "span", "causal"),
    ],
)
def test_what_the_model_tells(
    key: str,
    value: Any,
    objective: ObjectiveName,
    fits: ObjectiveName,
    model_folder: Path,
    tmp_path: Path,
) -> None:
    recipe = load_recipe(bare("qa", model_folder, tmp_path), [f"{key}={value}"])
    assert f" {key}: {value}: " in refusal(recipe, BY_MODEL, Learning(OBJECTIVES[objective], False))
    refuse_unread(recipe, BY_MODEL, Learning(OBJECTIVES[fits], False))


def test_noise_is_for_one_embedding(model_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(bare("qa", model_folder, tmp_path), ["train.neftune_noise_alpha=5.0"])
    refuse_unread(recipe, BY_MODEL, Learning(OBJECTIVES["causal"], False))
    answer = refusal(recipe, BY_MODEL, Learning(OBJECTIVES["label"], True))
    assert "train.neftune_noise_alpha: 5.0: encoder and decoder share the embeddings" in answer


@pytest.mark.parametrize(("warmup", "passes"), [(3, True), (4, False)])
def test_a_warmup_beyond_the_last_step_is_refused(
    warmup: int, passes: bool, model_folder: Path, tmp_path: Path
) -> None:
    """24 rows in steps of 8 are 3 steps."""
    overrides = ["train.max_steps=null", "train.num_train_epochs=1", f"train.warmup_steps={warmup}"]
    recipe = load_recipe(bare("qa", model_folder, tmp_path), overrides)
    plan = make_plan(
        rows=24,
        world_size=1,
        per_device=8,
        global_batch=8,
        accumulation=None,
        epochs=1,
        max_steps=None,
        warmup_steps=warmup,
        warmup_ratio=None,
    )
    if passes:
        refuse_unread(recipe, BY_PLAN, plan)
    else:
        assert f"train.warmup_steps: {warmup}: the run ends before" in refusal(
            recipe, BY_PLAN, plan
        )


def test_the_run_stops_before_anything_is_written(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bare("qa", model_folder, tmp_path)
    assert report_errors(False, train_recipe, str(path), ["train.save_total_limit=3"]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: train.save_total_limit: 3: no checkpoints are saved; set train.save_steps, "
        "or remove it.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_written_recipe_knows_what_nobody_set(model_folder: Path, tmp_path: Path) -> None:
    """So that a run can be repeated and measured again, although every default is written out."""
    recipe = load_recipe(bare("text", model_folder, tmp_path), ["seed=5"])
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(recipe, read_launch({})), encoding="utf-8")
    loaded = load_recipe(again)
    assert set_by_user(loaded) == set_by_user(recipe)
    refuse_unread(loaded, BY_RECIPE, loaded)


def test_a_mark_counts_as_long_as_the_value_is_the_default(
    model_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(bare("text", model_folder, tmp_path))
    again = tmp_path / "again.yaml"
    text = resolved_yaml(recipe)
    again.write_text(text.replace("num_beams: 1 ", "num_beams: 4 "), encoding="utf-8")
    assert "num_beams: 4" in again.read_text(encoding="utf-8")
    edited = load_recipe(again)
    assert "evaluation.num_beams: 4" in refusal(edited, BY_RECIPE, edited)
    overridden = load_recipe(again, ["evaluation.num_beams=1"])
    assert "evaluation.num_beams: 1" in refusal(overridden, BY_RECIPE, overridden)


def test_a_resolved_recipe_says_where_each_value_comes_from(
    model_folder: Path, tmp_path: Path
) -> None:
    path = bare("text", model_folder, tmp_path)
    launch = read_launch(
        {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
            "WORLD_SIZE": "2",
        }
    )
    overrides = ["seed=5", 'train.run_name="two\\nlines # default"', "data.columns={text: '#'}"]
    text = resolved_yaml(load_recipe(path, overrides), launch)
    assert yaml.safe_load(text)["train"]["run_name"] == "two\nlines # default"
    comments = {}
    for line in text.splitlines():
        key, _, comment = line.rpartition("  # ")
        comments[key.strip().partition(":")[0]] = comment
    numbers = {
        line.partition(":")[0].strip(): number
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    }
    assert comments["max_steps"] == f"{path}:{numbers['max_steps']}"
    assert comments["seed"] == comments["columns"] == comments["run_name"] == "override"
    assert comments["num_beams"] == comments["quantization"] == "default"
    assert comments["#   engine"] == (
        "distributed_type: DEEPSPEED (ACCELERATE_USE_DEEPSPEED=true), "
        "deepspeed_config.zero_stage (ACCELERATE_DEEPSPEED_ZERO_STAGE=3)"
    )
    assert comments["#   world_size"] == "num_processes (WORLD_SIZE=2)"
    assert comments["#   offload"] == "default"
