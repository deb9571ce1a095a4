import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.ledger import text_hash
from peftune.data.overlap import normalized, set_aside
from peftune.errors import DataError


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


def hashes(sources: list[str]) -> np.ndarray:
    return np.array([text_hash(normalized(source)) for source in sources], dtype=np.uint64)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    st.floats(0.01, 0.9),
    st.integers(0, 2**32),
)
def test_a_cut_never_divides_equal_sources(sources: list[str], fraction: float, seed: int) -> None:
    try:
        validated = set_aside(hashes(sources), fraction, seed)
    except DataError:
        # Only when whole groups of equal rows leave nothing on the other side.
        assert max(map(sources.count, sources)) + fraction * len(sources) > len(sources) - 1
        return
    aside = {source for source, chosen in zip(sources, validated, strict=True) if chosen}
    left = {source for source, chosen in zip(sources, validated, strict=True) if not chosen}
    assert left and aside and not left & aside
    assert validated.sum() >= round(fraction * len(sources))


def test_a_cut_that_leaves_nothing_to_train_on() -> None:
    with pytest.raises(DataError) as caught:
        set_aside(hashes(["Same", "same!"]), 0.5, seed=0)
    assert str(caught.value) == (
        "data.validation_fraction: 0.5 of 2 rows leaves no row to train on."
    )
