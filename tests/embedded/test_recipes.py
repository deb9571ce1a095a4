"""The recipes on embedded models are run as they are shipped, and the models visibly learn."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.launching import environment

# Recipe to its measure, the least that the adapted model must have, and the least that it gains.
RECIPES = {
    "classify": ("accuracy", 0.85, 0.6),
    "translate": ("bleu", 80.0, 10.0),
    "qa": ("f1", 0.5, 0.3),
}


def results(recipe: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """What a run of the recipe leaves in eval_results.json."""
    script = str(REPOSITORY / "peftune" / "run.py")
    command = [sys.executable, script, str(REPOSITORY / "recipes" / f"{recipe}.yaml")]
    done = subprocess.run(
        [*command, f"output_dir={folder / recipe}", *overrides],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads((folder / recipe / "eval_results.json").read_text()))


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


@pytest.mark.parametrize("recipe", ["translate", pytest.param("qa", marks=pytest.mark.thorough)])
def test_answers_get_likelier_in_the_first_epoch(recipe: str, tmp_path: Path) -> None:
    scores = results(recipe, tmp_path, "train.num_train_epochs=1")
    assert scores["adapted"]["loss"] < scores["base"]["loss"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_short(recipe: str) -> None:
    text = (REPOSITORY / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    keys = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(keys) <= 30
