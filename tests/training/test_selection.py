"""Which validation is the best, and when patience ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftune.training.selection import Selection, is_due

LOSSES = st.lists(st.integers(1, 9).map(float), min_size=1, max_size=30)


def after(losses: list[float]) -> Selection:
    """One validation every 10 steps."""
    selection = Selection()
    for index, loss in enumerate(losses, 1):
        selection = selection.updated(10 * index, loss)
    return selection


def test_nothing_is_best_before_the_first_validation() -> None:
    assert (Selection().best_loss, Selection().best_step) == (None, None)
    assert not Selection().exhausted(1)


def test_a_tie_keeps_the_earlier_step() -> None:
    assert after([2.0, 1.5, 1.5]) == Selection(best_loss=1.5, best_step=20, since_best=1)


def test_a_loss_of_zero_is_the_best_there_is() -> None:
    assert after([0.0, 0.5]).best_step == 10


@settings(deadline=None)
@given(LOSSES)
def test_the_best_is_the_first_lowest(losses: list[float]) -> None:
    selection = after(losses)
    assert selection.best_loss == min(losses)
    assert selection.best_step == 10 * (losses.index(min(losses)) + 1)
    assert selection.since_best == len(losses) - 1 - losses.index(min(losses))


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    selection = after([2.0, float("nan"), 3.0])
    assert (selection.best_loss, selection.best_step) == (2.0, 10)
    assert selection.exhausted(2)


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.5, 2.4], 2, True),
        ([3.0, 2.0, 2.5, 1.9, 2.0], 2, False),
        ([3.0, 3.0], 1, True),
        ([3.0], 1, False),
        ([1.0, 2.0, 3.0, 4.0], None, False),
    ],
)
def test_patience_counts_validations_in_a_row(
    losses: list[float], patience: int | None, stops: bool
) -> None:
    assert after(losses).exhausted(patience) is stops


def test_an_earlier_selection_stays_what_it_was() -> None:
    earlier = after([2.0])
    earlier.updated(20, 1.0)
    assert earlier == Selection(2.0, 10, 0)


@pytest.mark.parametrize(
    ("every", "total", "due"),
    [
        (3, 8, [3, 6, 8]),
        (4, 8, [4, 8]),
        (1, 3, [1, 2, 3]),
        (20, 8, [8]),
        (None, 8, []),
    ],
)
def test_what_is_due_every_so_many_steps_is_due_at_the_end(
    every: int | None, total: int, due: list[int]
) -> None:
    assert [step for step in range(1, total + 1) if is_due(step, every, total)] == due
