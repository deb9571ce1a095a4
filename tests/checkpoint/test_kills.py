"""Killed at random moments and started again, a run ends as if nobody had touched it.

A small draw; `benchmarks/kills.py` makes the large one.
"""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.checkpoint.killing import Game
from tests.conftest import write_recipe


@pytest.mark.parametrize(("world_size", "kills"), [(1, 8), (2, 3)])
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(
    world_size: int, kills: int, recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe_tree["train"] |= {"save_steps": 1, "eval_steps": 2, "load_best_model_at_end": True}
    recipe_tree["train"] |= {"max_steps": 12, "save_total_limit": 3}
    game = Game(write_recipe(tmp_path, recipe_tree), tmp_path, 12, Random(5), world_size)
    game.play(kills)
    assert game.kills.total() == kills
