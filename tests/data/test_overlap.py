import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.examples import Example
from peftune.data.overlap import check_overlap, normalized, set_aside
from peftune.errors import DataError


def example(row: int, source: str) -> Example:
    return Example(row, source, "answer", ("answer",), source, ())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 2 + 2?", "what is 2+2", True),
        ("Tom:  Hi!\n", "tom hi", True),
        ("STRASSE", "straße", True),
        ("What is 2 + 2?", "What is 2 + 3?", False),
        ("?!", "!?", False),
        ("東京", "京都", False),
    ],
)
def test_case_blanks_and_punctuation_do_not_tell_sources_apart(
    one: str, other: str, same: bool
) -> None:
    assert (normalized(one) == normalized(other)) is same


def test_repeats_inside_a_split_are_allowed() -> None:
    train, test = [example(0, "a"), example(1, "a")], [example(0, "b"), example(1, "b")]
    check_overlap({"train": train, "validation": [], "test": test}, {})


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    st.floats(0.01, 0.9),
    st.integers(0, 2**32),
)
def test_a_cut_never_divides_equal_sources(sources: list[str], fraction: float, seed: int) -> None:
    examples = [example(row, source) for row, source in enumerate(sources)]
    try:
        training, validation = set_aside(examples, fraction, seed)
    except DataError:
        # Only when whole groups of equal rows leave nothing on the other side.
        assert max(map(sources.count, sources)) + fraction * len(sources) > len(sources) - 1
        return
    assert training and len(validation) >= round(fraction * len(sources))
    assert {one.source for one in training}.isdisjoint(one.source for one in validation)
    assert sorted(training + validation, key=lambda one: one.row) == examples


def test_a_cut_that_leaves_nothing_to_train_on() -> None:
    with pytest.raises(DataError) as caught:
        set_aside([example(0, "Same"), example(1, "same!")], 0.5, seed=0)
    assert str(caught.value) == (
        "data.validation_fraction: 0.5 of 2 rows leaves no row to train on."
    )
