"""Slices of splits, spelt as the `datasets` library spells them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.splits import SplitSlice
from peftune.data.table import Table
from peftune.errors import DataError
from tests.data.in_memory import in_memory


def table(rows: int) -> Table:
    return in_memory("data.path", "d/train.jsonl", [{"n": number} for number in range(rows)])


def numbers(typed: str, rows: int, countable: bool = True) -> list[int]:
    wanted = SplitSlice.parse(typed, "data.splits: train")
    return [row["n"] for _, row in wanted.of(table(rows), countable)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("train", range(10)),
        ("train[:]", range(10)),
        ("train[:30%]", range(3)),
        ("train[30%:]", range(3, 10)),
        ("train[20%:25%]", range(2, 2)),
        ("train[2:5]", range(2, 5)),
        ("train[ 8 : ]", range(8, 10)),
        ("train[-3:]", range(7, 10)),
        ("train[:-20%]", range(8)),
        ("train[1:50%]", range(1, 5)),
    ],
)
def test_slices(typed: str, expected: range) -> None:
    if not expected:
        with pytest.raises(DataError):
            numbers(typed, 10)
    else:
        assert numbers(typed, 10) == list(expected)


@given(st.integers(2, 400), st.integers(0, 100))
def test_two_shares_share_out_every_row(rows: int, percent: int) -> None:
    found: list[int] = []
    for typed in (f"train[:{percent}%]", f"train[{percent}%:]"):
        try:
            found += numbers(typed, rows)
        except DataError as error:
            # One side may be empty, which is refused by itself.
            assert "holds no rows" in str(error)
    assert found == list(range(rows))


@given(st.integers(5, 300), st.integers(1, 99))
def test_shares_are_those_of_the_datasets_library(rows: int, percent: int) -> None:
    from datasets import ReadInstruction

    spec = ReadInstruction.from_spec(f"train[:{percent}%]")
    [absolute] = spec.to_absolute({"train": rows})
    try:
        ours = numbers(f"train[:{percent}%]", rows)
    except DataError:
        ours = []
    assert len(ours) == absolute.to


@pytest.mark.parametrize(("typed", "first"), [("train[3:5]", 3), ("train[2:]", 2), ("train", 0)])
def test_slices_of_a_stream(typed: str, first: int) -> None:
    assert numbers(typed, 10, countable=False)[0] == first


SPELLING = (
    "is not the name of a split, with a slice or without, like train, train[:90%] or test[100:600]."
)


@pytest.mark.parametrize(
    ("typed", "countable", "problem"),
    [
        ("train[:90%", True, SPELLING),
        ("train[90%]", True, SPELLING),
        ("train[0.5:]", True, SPELLING),
        ("train[:ten]", True, SPELLING),
        ("train+test", True, SPELLING),
        ("", True, SPELLING),
        ("train[:120%]", True, ": 120% is no share of the rows; 0% to 100% are."),
        ("train[:11]", True, "reaches beyond the 10 rows of d/train.jsonl."),
        ("train[-11:]", True, "reaches beyond the 10 rows of d/train.jsonl."),
        ("train[5:5]", True, "holds no rows of the 10 in d/train.jsonl."),
        ("train[80%:20%]", True, "holds no rows of the 10 in d/train.jsonl."),
        ("train[6:5]", False, "holds no rows."),
        (
            "train[:90%]",
            False,
            ": the rows of a stream are not counted, so a slice of it needs whole numbers from its "
            "start, e.g. train[1000:].",
        ),
    ],
)
def test_slices_that_mean_nothing(typed: str, countable: bool, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        numbers(typed, 10, countable)
    gap = "" if problem.startswith(":") else " "
    assert str(caught.value) == f"data.splits: train: {typed!r}{gap}{problem}"
