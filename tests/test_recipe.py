"""A recipe as a whole: what is accepted, what the messages say, and that it can be written again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from peftune.errors import RecipeError
from peftune.foreign_names import FOREIGN_NAMES
from peftune.recipe import Recipe, json_schema, load_recipe, recipe_keys
from peftune.resolved import resolved_yaml, set_by_user
from peftune.section import Section
from peftune.tasks import TASKS
from tests.conftest import write_recipe

# Key by key away from the defaults, over all methods.
EVERYTHING = (
    "overwrite_output_dir=true",
    "model.revision=main",
    "data.validation_fraction=0.1",
    "data.max_train_samples=7",
    "data.overlong=truncate_prompt",
    "adapter={method: dora, r: 8, target_modules: [q_proj, v_proj], modules_to_save: [lm_head], "
    "rank_pattern: {'layers\\.[01]\\.q_proj': 2}, alpha_pattern: {v_proj: 3}, use_rslora: true}",
    "quantization={method: bnb-fp4, double_quant: false, compute_dtype: bfloat16}",
    "train.adam_epsilon=1.0e-16",
    "train.learning_rate=123456789.0",
    "train.max_grad_norm=1.0e+20",
    "train.mixed_precision=no",
    "train.report_to=[tensorboard, wandb]",
    "train.run_name='no'",
    "evaluation.num_beams=4",
    "export={merge: false, merge_base: dequantized}",
)
# PyYAML takes the control character NEL for a line break and loses it.
WRITABLE = st.text(st.characters(exclude_characters="\x85", codec="utf-8"), max_size=40)


@pytest.fixture
def path(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    return write_recipe(tmp_path, recipe_tree)


def refusal(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(path, list(overrides))
    return [line.removeprefix(f"{path}:").strip() for line in str(refused.value).splitlines()]


def test_the_file_fills_the_recipe_and_defaults_do_the_rest(path: Path) -> None:
    recipe = load_recipe(path)
    assert (recipe.task, recipe.seed, recipe.train.learning_rate) == ("summarize", 3, 0.01)
    assert recipe.data.columns == {"completion": "summary"}
    assert (recipe.adapter.method, recipe.quantization, recipe.export.merge) == ("lora", None, True)
    assert (recipe.train.optim, recipe.train.warmup_ratio) == ("adamw_torch_fused", None)


def test_overrides_win_and_the_last_one_of_a_key_counts(path: Path) -> None:
    overrides = ["train.learning_rate=2e-4", "seed=8", "seed=9", "quantization.method=bnb-int8"]
    recipe = load_recipe(path, [*overrides, "train.eval_steps=", "adapter.target_modules=[q_proj]"])
    assert (recipe.train.learning_rate, recipe.seed, recipe.train.eval_steps) == (2e-4, 9, None)
    assert recipe.quantization is not None
    assert recipe.quantization.method == "bnb-int8"
    assert (recipe.adapter.target_modules, recipe.adapter.r) == (("q_proj",), 4)


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("seed='3'", "'3'"),
        ("seed=3.0", "3.0"),
        ("seed=true", "True"),
        ("seed=-1", "-1"),
        ("output_dir=7", "7"),
        ("overwrite_output_dir=1", "1"),
        ("train.max_steps=1e1", "10.0"),
        ("train.label_smoothing_factor=1", "1"),
        ("train.learning_rate=0", "0"),
        ("train.report_to=wandb", "'wandb'"),
        ("train.report_to=[comet]", "'comet'"),
        ("data.max_length=7", "7"),
        ("data.columns=[summary]", "['summary']"),
        ("export.merge=yes please", "'yes please'"),
    ],
)
def test_no_value_is_bent_into_another_type_or_range(override: str, shown: str, path: Path) -> None:
    (line,) = refusal(path, override)
    assert re.match(rf"{override.split('=')[0]}(\.0)?: {re.escape(shown)}", line)


def test_whole_numbers_serve_where_a_number_is_asked_for(path: Path) -> None:
    assert load_recipe(path, ["train.learning_rate=1"]).train.learning_rate == 1.0


@pytest.mark.parametrize(("written", "read"), [("no", "no"), ("'no'", "no"), ("bf16", "bf16")])
def test_a_bare_no_is_a_precision(written: str, read: str, path: Path) -> None:
    """YAML 1.1 reads it as false."""
    path.write_text(path.read_text().replace("train:\n", f"train:\n  mixed_precision: {written}\n"))
    assert load_recipe(path).train.mixed_precision == read


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "15e-5", "'2.5e-3'", "'0.5'", "'3'"])
def test_text_that_looks_like_a_number_is_answered_with_a_spelling_that_loads(
    text: str, path: Path
) -> None:
    before = path.read_text()
    path.write_text(before.replace("learning_rate: 0.01", f"learning_rate: {text}"))
    (line,) = refusal(path)
    spelling = line.removesuffix(".").rpartition("; write ")[2]
    path.write_text(before.replace("learning_rate: 0.01", f"learning_rate: {spelling}"))
    assert load_recipe(path).train.learning_rate == float(text.strip("'"))


def test_every_problem_has_one_line_that_tells_where(path: Path) -> None:
    text = path.read_text()
    text = text.replace("seed: 3", "seed: many").replace("r: 4", "r: 0\n  lora_alhpa: 3")
    text = text.replace("completion: summary", "completion: 5")
    path.write_text(text.replace("  learning_rate: 0.01\n", ""))
    numbers = {
        line.split(":")[0].strip(): i for i, line in enumerate(path.read_text().split("\n"), 1)
    }
    assert refusal(path, "evaluation.num_beams=0") == [
        f"{numbers['seed']}: seed: 'many': input should be a valid integer.",
        f"{numbers['completion']}: data.columns.completion: 5: input should be a valid string.",
        f"{numbers['r']}: adapter.r: 0: input should be greater than or equal to 1.",
        f"{numbers['lora_alhpa']}: adapter.lora_alhpa: unknown key. "
        "Did you mean adapter.lora_alpha?",
        "train.learning_rate: required, but not set.",
        "evaluation.num_beams: 0: input should be greater than or equal to 1.",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "sed: unknown key. Did you mean seed?"),
        ("trian={}", "trian: unknown key. Did you mean train?"),
        ("adapter.lora_alfa=1", "adapter.lora_alfa: unknown key. Did you mean adapter.lora_alpha?"),
        ("learning_rate=1.0", "learning_rate: unknown key. It belongs to train.learning_rate."),
        ("train.seed=1", "train.seed: unknown key. It belongs to seed."),
        ("train.r=1", "train.r: unknown key. It belongs to adapter.r."),
        ("model.zzzzzzzzzz=1", "model.zzzzzzzzzz: unknown key."),
        ("task=instrukt", "task: 'instrukt' is not a task. Did you mean instruct? The tasks are: "
         "classify, tag, extract, qa, summarize, translate, instruct, chat, text."),
        ("model.dtype=bf16", "model.dtype: 'bf16' is not one of 'float32', 'bfloat16' or 'float16'."
         " Did you mean bfloat16?"),
        ("quantization={}", "quantization: needs the key method."),
        ("quantization.method=nf4", "quantization.method: 'nf4' is not one of 'bnb-nf4', 'bnb-fp4', "
         "'bnb-int8'. Did you mean bnb-nf4?"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_with_the_right_one(
    override: str, message: str, path: Path
) -> None:
    assert refusal(path, override) == [message]


def test_every_foreign_name_is_answered_with_a_key_that_exists(path: Path) -> None:
    keys = set(recipe_keys())
    for foreign, ours in FOREIGN_NAMES.items():
        assert ours in keys, foreign
        expected = f"train.{foreign}: unknown key. peftune calls it {ours}."
        assert refusal(path, f"train.{foreign}=1") == [expected]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("train.num_train_epochs=1",), "give exactly one of num_train_epochs and max_steps"),
        (("train.max_steps=",), "give exactly one of num_train_epochs and max_steps"),
        (
            ("train.warmup_steps=1", "train.warmup_ratio=0.1"),
            "give at most one of warmup_steps and warmup_ratio",
        ),
        (("data.train=t.jsonl",), "give exactly one of path, train and mixture"),
        (("data.path=",), "give exactly one of path, train and mixture"),
        (
            ("data.path=", "data.train=t.jsonl", "data.name=x"),
            "name, revision and splits belong to path, which is not set",
        ),
        (
            ("data.path=", "data.mixture=[{train: t.jsonl, weight: 2}, {train: u.jsonl}]"),
            "give every source of mixture a weight, or none",
        ),
        (
            ("data.streaming=true", "data.validation_fraction=0.1"),
            "validation_fraction needs all rows at once, which streaming does not have; give "
            "validation rows, or slices in splits",
        ),
        (
            ("data.validation=v.jsonl", "data.validation_fraction=0.1"),
            "give at most one of validation and validation_fraction",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    overrides: tuple[str, ...], message: str, path: Path
) -> None:
    (line,) = refusal(path, *overrides)
    section = overrides[0].split(".")[0]
    assert re.fullmatch(rf"\d+: {section}: {message}\.", line)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        EVERYTHING,
        ("adapter={method: ia3, target_modules: [k_proj], feedforward_modules: []}",),
        ("adapter.init_lora_weights=pissa", "quantization.method=bnb-nf4"),
        ("data.path=null", "data.train=t.jsonl", "data.validation=v.csv", "data.test=w.parquet"),
    ],
    ids=["plain", "everything", "ia3", "pissa", "files"],
)
def test_a_written_recipe_is_read_as_the_same(
    overrides: tuple[str, ...], path: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(path, list(overrides))
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert set_by_user(load_recipe(again)) == set_by_user(recipe)


def test_a_written_recipe_spells_out_defaults_and_overrides(path: Path) -> None:
    """So that a run can be repeated with a later release that has other defaults."""
    recipe = load_recipe(path, ["train.weight_decay=0.25"])
    written = yaml.safe_load(resolved_yaml(recipe))
    assert written["train"]["weight_decay"] == 0.25
    for name, part in recipe:
        assert name in written
        if isinstance(part, Section):
            assert written[name].keys() == dict(part).keys()


@settings(deadline=None)
@given(text=WRITABLE, rate=st.floats(min_value=1e-300, max_value=1e300))
def test_any_text_and_any_number_survive_being_written(
    text: str, rate: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sections = {
        "model": {"model_name_or_path": text},
        "data": {"path": "d", "prompt_template": text, "columns": {text: text}},
        "adapter": {"method": "lora", "rank_pattern": {re.escape(text): 1}},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": rate, "run_name": text},
    }
    recipe = Recipe.model_validate({"task": "text", "output_dir": text, **sections})
    written = tmp_path_factory.getbasetemp() / "written.yaml"
    written.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(written) == recipe


@pytest.mark.parametrize("section", ["model", "data", "adapter", "train", "evaluation", "export"])
def test_a_recipe_cannot_be_changed(section: str, path: Path) -> None:
    recipe = load_recipe(path)
    part = dict(recipe)[section]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(recipe, section, part)
    for key in dict(part):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, key, None)


def test_a_source_of_a_mixture_contradicts_itself(path: Path) -> None:
    for source, message in (
        ("{}", "give exactly one of path and train"),
        (
            "{train: t.jsonl, split: dev}",
            "name, revision and split belong to path, which is not set",
        ),
    ):
        (line,) = refusal(path, "data.path=", f"data.mixture=[{source}]")
        assert line == f"data.mixture.0: {message}."


def schema_keys(schema: dict[str, Any], field: dict[str, Any], prefix: str) -> Iterator[str]:
    """Dotted keys of a schema, each checked to be explained."""
    for reference in re.findall(r'"#/\$defs/(\w+)"', json.dumps(field)):
        definition = schema["$defs"][reference]
        assert definition["additionalProperties"] is False, reference
        for name, nested in definition["properties"].items():
            assert nested.get("description"), f"{prefix}{name} is not explained"
            yield prefix + name
            yield from schema_keys(schema, nested, f"{prefix}{name}.")


def test_the_schema_is_json_with_every_key_explained() -> None:
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    found = set(schema["properties"])
    for name, field in schema["properties"].items():
        found |= set(schema_keys(schema, field, f"{name}."))
    assert found == set(recipe_keys())
    assert set(schema["required"]) == {"task", "output_dir", "model", "data", "adapter", "train"}
    assert schema["properties"]["task"]["enum"] == [*TASKS]
