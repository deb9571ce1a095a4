"""Killed at random moments and started again, a run ends as if nobody had touched it.

A small draw of what `benchmarks/kills.py` plays, by its own function.
"""

from random import Random
from typing import Any

import pytest

from benchmarks.kills import STEPS, play


@pytest.mark.parametrize(
    ("world_size", "kills"), [pytest.param(1, 4, marks=pytest.mark.thorough), (2, 2)]
)
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(
    world_size: int, kills: int, recipe_tree: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_tree["train"] |= {"save_steps": 1, "eval_steps": 2, "load_best_model_at_end": True}
    recipe_tree["train"] |= {"max_steps": STEPS, "save_total_limit": 3}
    play(world_size, kills, Random(5), recipe_tree)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"{world_size} rank(s): {kills} kills in ")
