"""A recipe's run as it is planned, and as it is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.engines.launch import Launch, read_launch
from peftune.engines.ranks import joined_ranks
from peftune.forecast.forecast import subject_of
from peftune.forecast.rehearsal import Subject
from peftune.pipeline import adapted_model, start_engine
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import Recipe

Tree = dict[str, Any]
ONE = Launch("ddp", 1, 0, use_cpu=True, wants_gpu=False, offload=False)


def planned(tree: Tree, launch: Launch = ONE, kind: str = "cpu") -> Subject:
    """A run before anything of it exists."""
    recipe = Recipe.model_validate(tree)
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    return subject_of(recipe, prepared, plan, launch, kind)


def made(tree: Tree, use: Callable[[Run, Engine], None]) -> None:
    """Hand `use` a run in this process and its engine before the first step."""
    recipe, launch = Recipe.model_validate(tree), read_launch({})
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), 1)
    with joined_ranks(launch, (), ".") as ranks:
        context = Run(recipe, launch, ranks, prepared, plan, Path(recipe.output_dir))
        use(context, start_engine(context, adapted_model(context)))


@pytest.fixture
def trees(recipe_tree: Tree, models: dict[str, Path], labelled_folder: Path) -> dict[str, Tree]:
    """A decoder's, an encoder-decoder's and an encoder's recipe."""
    of = {
        name: {"model_name_or_path": str(path), "dtype": "float32"} for name, path in models.items()
    }
    labelled = {"path": str(labelled_folder), "max_length": 64}
    labelled["columns"] = {"label": "label"}
    return {
        "decoder": recipe_tree,
        "encoder-decoder": {**recipe_tree, "model": of["t5"]},
        "encoder": {
            **{key: recipe_tree[key] for key in ("output_dir", "seed", "adapter", "train")},
            "task": "classify",
            "model": of["bert"],
            "data": labelled,
        },
    }
