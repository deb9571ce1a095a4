"""The learning rate of every step, checked against hand-written values and transformers' own."""

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from peftune.training.schedule import Shape, learning_rate_factor

SHAPES: tuple[Shape, ...] = get_args(Shape)


def factors(shape: Shape, warmup_steps: int, total_steps: int) -> list[float]:
    return [
        learning_rate_factor(step, shape=shape, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(total_steps)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_warmup_rises_on_a_line_and_the_first_step_already_learns(shape: Shape) -> None:
    assert factors(shape, 4, 20)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, 0.853553, 0.5, 0.146447]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_shape_after_the_warmup(shape: Shape, expected: list[float]) -> None:
    assert factors(shape, 0, 4) == pytest.approx(expected, abs=1e-6)
    assert factors(shape, 3, 7)[3:] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("shape", "last"), [("linear", 0.0101), ("cosine", 0.0003)])
def test_the_decay_ends_near_zero(shape: Shape, last: float) -> None:
    assert 0 < factors(shape, 0, 100)[-1] <= last
    after = learning_rate_factor(100, shape=shape, warmup_steps=0, total_steps=100)
    assert after == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "schedule"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_the_decay_is_that_of_transformers(shape: Shape, schedule: Any, warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = []
    scheduler = schedule(optimizer, warmup_steps, 30)
    for _ in range(30):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert factors(shape, warmup_steps, 30)[warmup_steps:] == pytest.approx(theirs[warmup_steps:])


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 300), st.integers(1, 200))
def test_every_step_of_a_run_learns_and_none_over_the_peak(
    shape: Shape, warmup_steps: int, total_steps: int
) -> None:
    assert all(0 < factor <= 1 for factor in factors(shape, warmup_steps, total_steps))


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2000), st.integers(0, 300), st.integers(1, 200))
def test_the_factor_stays_between_zero_and_one(
    shape: Shape, step: int, warmup_steps: int, total_steps: int
) -> None:
    """Also past the end of the run, where cosine must not rise again."""
    factor = learning_rate_factor(
        step, shape=shape, warmup_steps=warmup_steps, total_steps=total_steps
    )
    assert 0 <= factor <= 1
    if shape != "constant" and step >= max(total_steps, warmup_steps + 1):
        assert factor == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 100), st.integers(2, 200))
def test_nothing_jumps_at_the_end_of_the_warmup(
    shape: Shape, warmup_steps: int, more_steps: int
) -> None:
    """The largest move between neighbours is one of the warmup, or of the decay's own slope."""
    values = factors(shape, warmup_steps, warmup_steps + more_steps)
    assert values[warmup_steps - 1] == values[warmup_steps] == 1.0
    slope = {"linear": 1.0, "cosine": 1.6, "constant": 0.0}[shape] / more_steps
    moves = [abs(later - earlier) for earlier, later in pairwise(values)]
    assert max(moves) <= max(1 / warmup_steps, slope) + 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_needs_no_history(shape: Shape) -> None:
    """A run that continues at step 7 asks for step 7 first."""
    alone = learning_rate_factor(7, shape=shape, warmup_steps=3, total_steps=12)
    assert factors(shape, 3, 12)[7] == alone
    assert learning_rate_factor(7, shape=shape, warmup_steps=3, total_steps=12) == alone
