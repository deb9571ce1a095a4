"""The recipes on embedded models are run as they are shipped, and the models visibly learn."""

import json
from pathlib import Path
from typing import Any

import pytest

from peftune.cli import report_errors, train_recipe
from tests.conftest import REPOSITORY

# Recipe to its measure, the least that the adapted model must have, and the least that it gains.
RECIPES = {
    "classify": ("accuracy", 0.85, 0.6),
    "translate": ("bleu", 80.0, 10.0),
    "qa": ("f1", 0.5, 0.3),
}


def results(recipe: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """What a run of the recipe leaves in eval_results.json."""
    path, run = REPOSITORY / "recipes" / f"{recipe}.yaml", folder / recipe
    assert report_errors(True, train_recipe, str(path), [f"output_dir={run}", *overrides]) == 0
    return dict(json.loads((run / "eval_results.json").read_text()))


@pytest.mark.parametrize(
    "recipe",
    ["classify", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("translate", "qa"))],
)
def test_the_adapted_model_has_learnt_the_task(recipe: str, tmp_path: Path) -> None:
    measure, least, gain = RECIPES[recipe]
    scores = results(recipe, tmp_path)
    base, adapted = (scores[which][measure]["value"] for which in ("base", "adapted"))
    assert adapted >= least
    assert adapted - base >= gain
    assert scores["adapted"]["loss"] < 0.7 * scores["base"]["loss"]


@pytest.mark.parametrize("recipe", ["translate", "qa"])
def test_a_recipe_that_writes_goes_to_its_end(recipe: str, tmp_path: Path) -> None:
    """Two steps and a few rows of it; the whole ones take minutes."""
    few = [f"data.max_{split}_samples=16" for split in ("train", "validation", "test")]
    scores = results(recipe, tmp_path, *few, "train.num_train_epochs=null", "train.max_steps=2")
    assert scores["examples"] == 16
    assert RECIPES[recipe][0] in scores["adapted"]
    assert (tmp_path / recipe / "merged" / "model.safetensors").is_file()


@pytest.mark.thorough
@pytest.mark.parametrize("recipe", ["translate", "qa"])
def test_answers_get_likelier_in_the_first_epoch(recipe: str, tmp_path: Path) -> None:
    scores = results(recipe, tmp_path, "train.num_train_epochs=1")
    assert scores["adapted"]["loss"] < scores["base"]["loss"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_short(recipe: str) -> None:
    text = (REPOSITORY / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    keys = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(keys) <= 30
