"""`peftune plan` as a person sees it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from peftune.errors import LaunchError
from peftune.forecast.planning import Asked, plan_text
from peftune.recipe import Recipe
from tests.forecast.conftest import Tree


def said(tree: Tree, **asked: Any) -> str:
    return "\n".join(plan_text(Recipe.model_validate(tree), Asked(**asked)))


def test_a_plan_for_a_device(recipe_tree: Tree) -> None:
    text = said(recipe_tree, gpu="h100", gpus=2, price=2.5)
    for words in ("world size", "trainable parameters", "peak of each phase", "sent by a rank"):
        assert words in text
    assert "of 80.00 GiB on h100" in text and "price" in text


def test_time_is_unknown_without_a_rate(recipe_tree: Tree) -> None:
    assert "time: unknown; give the device's rate, as in --gpu 24GB:165" in said(
        recipe_tree, gpu="24GB"
    )


@pytest.mark.thorough
def test_the_chosen_layout_is_written(recipe_tree: Tree, tmp_path: Path) -> None:
    text = said(recipe_tree, gpu="h100", gpus=2, fit=tmp_path / "layout.yaml")
    settings = yaml.safe_load((tmp_path / "layout.yaml").read_text())
    assert settings["num_processes"] == 2
    assert "is the fastest that fits" in text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gpu": "h1000"}, "--gpu: 'h1000' is no device"),
        ({"gpu": "h100", "price": -1.0}, "--price: -1 is below zero"),
        ({"fit": Path("x.yaml")}, "--fit: say for which device"),
        ({"gpu": "h100", "gpus": 2, "config_file": Path("x.yaml")}, "--config-file: the file says"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    recipe_tree: Tree, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(LaunchError) as refused:
        said(recipe_tree, **asked)
    assert str(refused.value).startswith(message)
