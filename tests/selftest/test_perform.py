"""What the self-test prints, records and leaves behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from peftune import pipeline
from peftune.cli import report_errors, selftest_recipe, train_recipe
from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.errors import RecipeError
from peftune.recipe import load_recipe
from peftune.records import read_json
from peftune.selftest import perform
from peftune.selftest.checks import checks
from peftune.selftest.perform import selftest
from tests.conftest import write_recipe
from tests.launching import adapter, metrics
from tests.selftest.conftest import Tree, started, tried

NUMBERS = ("step", "loss", "grad_norm", "eval_loss", "learning_rate")


@pytest.mark.parametrize(
    "keys",
    [
        {"train": {"padding_free": False, "gradient_checkpointing": True}},
        {"quantization": {"method": "bnb-nf4"}, "train": {"mixed_precision": "bf16"}},
        {"quantization": {"method": "bnb-int8"}, "adapter": {"method": "dora", "r": 4}},
        {"adapter": {"method": "lora", "r": 4, "init_lora_weights": "pissa"}},
        {"adapter": {"method": "ia3"}, "model": {"dtype": "bfloat16"}},
        {"train": {"label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0}},
        {"adapter": {"method": "lora", "r": 4, "modules_to_save": ["embed_tokens"]}},
    ],
    ids=["padded", "nf4", "int8", "pissa", "ia3", "noise", "tied"],
)
def test_a_decoder_passes(keys: dict[str, Any], recipe_tree: Tree) -> None:
    for section, values in keys.items():
        replaces = section in ("adapter", "quantization")
        recipe_tree[section] = values if replaces else {**recipe_tree[section], **values}
    assert [result.name for result in tried(recipe_tree)] == [check.name for check in checks(True)]


OTHERS = [
    ("t5", "summarize", "data_folder", {}),
    ("bart", "text", "labelled_folder", {}),
    ("bert", "text", "labelled_folder", {}),
    ("bart", "classify", "labelled_folder", {}),
    ("bert", "classify", "labelled_folder", {"columns": {"label": "labels"}}),
    ("bert", "classify", "labelled_folder", {"columns": {"label": "value"}}),
    ("llama", "tag", "tagged_folder", {}),
    ("bert", "extract", "asked_folder", {"doc_stride": 16}),
    ("llama", "chat", "chat_folder", {"max_length": 256}),
]


@pytest.mark.parametrize(("model", "task", "folder", "data"), OTHERS)
def test_every_objective_passes(
    model: str,
    task: str,
    folder: str,
    data: dict[str, Any],
    recipe_tree: Tree,
    models: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    recipe_tree["task"] = task
    recipe_tree["model"]["model_name_or_path"] = str(models[model])
    path = str(request.getfixturevalue(folder))
    if task == "chat":
        data = {**data, "chat_template": f"{path}/chat.jinja"}
    if task == "summarize":
        data = {**recipe_tree["data"], **data}
    recipe_tree["data"] = {"max_length": 64, **data, "path": path}
    if task not in ("summarize", "chat"):
        del recipe_tree["evaluation"]
    names = {result.name for result in tried(recipe_tree)}
    writes = model != "bert" and task in ("summarize", "text", "chat")
    assert {"end_token", "causality"} & names == ({"end_token", "causality"} if writes else set())


def trained(recipe: Path, run: str, *overrides: str) -> Path:
    folder = recipe.parent / run
    assert (
        report_errors(False, train_recipe, str(recipe), [f"output_dir={folder}", *overrides]) == 0
    )
    return folder


def numbers(run: Path) -> list[dict[str, Any]]:
    return [{key: line[key] for key in NUMBERS if key in line} for line in metrics(run)]


def test_a_training_with_and_without_it_is_the_same(
    recipe_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss, gradient norm and weight, bit for bit, with dropout and the full test."""
    recipe_tree["adapter"]["lora_dropout"] = 0.1
    recipe_tree["export"] = {"merge": False, "verify": False}
    recipe = write_recipe(tmp_path, recipe_tree)
    after = [trained(recipe, "short"), trained(recipe, "full", "selftest.full=true")]
    monkeypatch.setattr(pipeline, "rehearse", lambda *arguments: None)
    without = trained(recipe, "without")
    assert not (without / "selftest.json").exists()
    for run, full in zip(after, (False, True), strict=True):
        assert numbers(run) == numbers(without)
        assert all(torch.equal(t, adapter(without)[name]) for name, t in adapter(run).items())
        listed = [check["name"] for check in read_json(run / "selftest.json")["checks"]]
        assert listed == [check.name for check in checks(full)]


def test_an_accepted_failure_is_recorded_and_trained_with(
    recipe_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In selftest.json and in the model card; the checks after it are made all the same."""
    monkeypatch.setattr("peftune.selftest.trial.Trial.bound", -1.0)
    monkeypatch.setattr("peftune.selftest.loss.BOUNDS", {-1.0: 1.0})
    recipe = write_recipe(tmp_path, recipe_tree)
    run = trained(recipe, "run", "selftest.accept=[padding, causality]", "export.merge=false")
    results = {check.pop("name"): check for check in read_json(run / "selftest.json")["checks"]}
    assert [name for name, one in results.items() if one["accepted"]] == ["padding", "causality"]
    assert not results["padding"]["passed"]
    assert results["gradients"]["passed"]
    card = (run / "README.md").read_text(encoding="utf-8")
    assert f"`padding` failed, and the recipe accepts it: {results['padding']['failure']}" in card


def test_memory_that_is_accepted_leaves_out_what_needs_its_step(
    recipe_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(trial: Any) -> int:
        raise MemoryError

    monkeypatch.setattr("peftune.selftest.memory.train_longest", full)
    recipe_tree["selftest"] = {"accept": ["memory"]}
    names = [result.name for result in tried(recipe_tree, full=False)]
    assert names == [
        "targets",
        "base_finite",
        "end_token",
        "padding",
        "causality",
        "loss",
        "memory",
    ]


def test_a_failure_ends_the_run_before_its_first_step(
    recipe_tree: Tree, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("peftune.selftest.trial.Trial.bound", -1.0)
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, recipe_tree)), []) == 1
    printed = capfd.readouterr().err
    assert [line for line in printed.splitlines() if line.startswith("error: ")] == [
        printed.splitlines()[-1]
    ]
    assert "error: selftest.padding: " in printed
    run = Path(recipe_tree["output_dir"])
    assert not (run / "metrics.jsonl").exists()
    assert not read_json(run / "selftest.json")["checks"][-1]["passed"]


def test_an_unknown_check_cannot_be_accepted(recipe_tree: Tree, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, recipe_tree)
    with pytest.raises(
        RecipeError, match=r"selftest\.accept\.0: 'pading' .* Did you mean padding\?"
    ):
        load_recipe(recipe, ["selftest.accept=[pading]"])


def test_the_verb_prints_every_check_with_its_numbers_and_writes_nothing(
    recipe_tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    assert report_errors(False, selftest_recipe, str(write_recipe(tmp_path, recipe_tree)), []) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    shown = {name.strip(): (promise.strip(), seen) for name, promise, _, seen, _ in lines}
    assert {name: promise for name, (promise, _) in shown.items()} == {
        check.name: check.promise for check in checks(full=True)
    }
    assert all(any(map(str.isdigit, seen)) for _, seen in shown.values())
    assert not Path(recipe_tree["output_dir"]).exists()


def test_random_numbers_go_on_where_they_were(recipe_tree: Tree) -> None:
    def use(context: Run, engine: Engine) -> None:
        torch.manual_seed(11)
        expected = torch.rand(3)
        torch.manual_seed(11)
        selftest(context, engine, engine.trainable_state(), True, lambda table: None)
        assert torch.equal(torch.rand(3), expected)

    started(recipe_tree, use)


def test_a_rank_that_fails_speaks_for_all() -> None:
    """Ranks that find other numbers report the failure, and the same one everywhere."""
    found = [
        perform.Finding({"a": 1}),
        perform.Finding({"a": 2}, "bad."),
        perform.Finding({"a": 3}),
    ]

    class Ranks:
        @staticmethod
        def gather_objects(items: Any) -> Any:
            return found

    ranks: Any = Ranks()
    assert all(perform.agreed(ranks, one) == found[1] for one in found)


def test_results_are_json_of_numbers(recipe_tree: Tree) -> None:
    results = tried(recipe_tree, full=False)
    text = json.dumps([dict(result.finding.numbers) for result in results], allow_nan=False)
    assert "peak GB" in text
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(perform.table(results))
    assert console.export_text().count("passed") == len(results)
