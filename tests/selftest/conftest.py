"""A run in this process, up to the self-test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.engines.launch import read_launch
from peftune.engines.ranks import joined_ranks
from peftune.pipeline import adapted_model, start_engine
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import Recipe
from peftune.selftest.check import Result
from peftune.selftest.perform import require_passed, selftest

Tree = dict[str, Any]
Try = Callable[..., list[Result]]


def started(given: Tree | Recipe, use: Callable[[Run, Engine], None]) -> None:
    """Hand `use` a run and its engine before the first step."""
    recipe = given if isinstance(given, Recipe) else Recipe.model_validate(given)
    launch = read_launch({})
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), 1)
    with joined_ranks(launch, (), ".") as ranks:
        context = Run(recipe, launch, ranks, prepared, plan, Path(recipe.output_dir))
        use(context, start_engine(context, adapted_model(context)))


def tried(given: Tree | Recipe, full: bool = True) -> list[Result]:
    """What the self-test finds; raises its error."""
    found: list[Result] = []

    def use(context: Run, engine: Engine) -> None:
        initial = engine.trainable_state()
        found.extend(selftest(context, engine, initial, full, lambda table: None))
        require_passed(found)

    started(given, use)
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """The models are too small to share out."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
