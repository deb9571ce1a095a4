"""The same recipe on every CPU launcher file: the same numbers, the same adapter."""

from pathlib import Path

import pytest
import yaml

from tests.conftest import summary_tree, write_recipe
from tests.launching import adapter_difference, largest_difference, launch, metrics

# tests/contract has every engine with every method; here they go through launcher and command.
LAYOUTS = ("cpu_ddp", "cpu_zero1", "cpu_zero2", "cpu_zero3", "cpu_fsdp2")
THOROUGH = ("cpu_ddp", "cpu_zero1", "cpu_zero2", "cpu_fsdp2")
QUANTIZED = (("bnb-nf4", "cpu_zero3"), ("bnb-int8", "cpu_zero2"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path) -> Path:
    """20 fp32 steps over five short last batches, with a validation in the middle."""
    tree = summary_tree(model_folder, data_folder)
    tree["data"]["max_train_samples"] = 37
    tree["train"] |= {
        "max_steps": 20,
        "learning_rate": 3.0e-3,
        "max_grad_norm": 0.1,
        "eval_steps": 7,
    }
    tree["export"] = {"merge": False, "verify": False}
    return write_recipe(tmp_path_factory.mktemp("layouts"), tree)


@pytest.fixture(scope="module")
def one_process(recipe: Path) -> Path:
    return launch("cpu", recipe, recipe.parent / "cpu")


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(name, marks=pytest.mark.thorough if name in THOROUGH else ())
        for name in LAYOUTS
    ],
)
def test_the_layout_changes_no_number(layout: str, recipe: Path, one_process: Path) -> None:
    run = launch(layout, recipe, recipe.parent / layout)
    for key in ("loss", "grad_norm", "eval_loss"):
        assert largest_difference(one_process, run, key) < 1e-5, key
    assert adapter_difference(one_process, run) < 1e-5
    predictions = "predictions.jsonl"
    assert (run / predictions).read_text() == (one_process / predictions).read_text()


def test_training_learns_and_clips(one_process: Path) -> None:
    lines = [line for line in metrics(one_process) if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert max(line["grad_norm"] for line in lines) > 0.1


def quantized(method: str) -> tuple[str, ...]:
    return (f"quantization.method={method}", "train.max_steps=8", "train.eval_steps=3")


@pytest.mark.thorough
@pytest.mark.parametrize(("method", "layout"), QUANTIZED)
def test_quantized_training_agrees(method: str, layout: str, recipe: Path) -> None:
    """A validation stands in the middle: quantized layers must come back from it unchanged."""
    alone = launch("cpu", recipe, recipe.parent / f"cpu-{method}", *quantized(method))
    run = launch(layout, recipe, recipe.parent / f"{layout}-{method}", *quantized(method))
    for key in ("loss", "grad_norm", "eval_loss"):
        assert largest_difference(alone, run, key) < 1e-5, key
    assert adapter_difference(alone, run) < 1e-5


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.thorough) for name in ("bert", "t5")],
)
def other_class(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    models: dict[str, Path],
    labelled_folder: Path,
    recipe: Path,
) -> tuple[Path, Path]:
    """An encoder that gives labels, an encoder-decoder that writes: the recipe, and one process."""
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    tree["model"]["model_name_or_path"] = str(models[request.param])
    tree["train"]["max_steps"] = 8
    if request.param == "bert":
        tree["task"] = "classify"
        del tree["evaluation"]  # nothing is generated
        tree["data"] = {"path": str(labelled_folder), "max_length": 64, "max_train_samples": 37}
    path = write_recipe(tmp_path_factory.mktemp(request.param), tree)
    return path, launch("cpu", path, path.parent / "cpu")


@pytest.mark.parametrize("layout", ["cpu_zero3"])
def test_no_class_of_model_feels_the_layout(layout: str, other_class: tuple[Path, Path]) -> None:
    path, alone = other_class
    run = launch(layout, path, path.parent / layout)
    for key in ("loss", "grad_norm", "eval_loss"):
        assert largest_difference(alone, run, key) < 1e-5, key
    assert adapter_difference(alone, run) < 1e-5
    assert (run / "predictions.jsonl").read_text() == (alone / "predictions.jsonl").read_text()
