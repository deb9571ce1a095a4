from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from peftune.data.overlong import TokenizedRow, shortened, windows

# "In: aa bb cc | dd\nOut:" and the completion "ee": one token for each word.
WORDS = [(0, 3), (4, 6), (7, 9), (10, 12), (13, 14), (15, 17), (17, 18), (18, 22), (23, 25)]
ROW = TokenizedRow(
    row=0,
    ids=tuple(range(9)),
    spans=tuple(WORDS),
    labels=(-100,) * 8 + (8,),
    prompt_ids=tuple(range(8)),
    prompt_spans=tuple(WORDS[:8]),
    fields=((4, 12), (15, 17)),
)


def test_the_longest_value_loses_its_last_tokens() -> None:
    short = shortened(ROW, 7)
    assert short is not None
    assert short.ids == (0, 1, 4, 5, 6, 7, 8)
    assert short.prompt_ids == (0, 1, 4, 5, 6, 7)
    assert short.labels == (-100,) * 6 + (8,)


def test_the_next_value_follows_when_the_longest_is_used_up() -> None:
    short = shortened(ROW, 6)
    assert short is not None
    assert short.ids == (0, 4, 5, 6, 7, 8)


def test_one_token_of_the_values_is_kept_and_the_rest_is_never_touched() -> None:
    assert shortened(ROW, 5) is None


def test_a_character_of_several_tokens_goes_as_a_whole() -> None:
    # One field of "a" and a three-byte character, then the completion.
    spans = ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3))
    row = TokenizedRow(
        0, (10, 11, 12, 13, 14), spans, (-100,) * 4 + (14,), (10, 11, 12, 13), spans[:4], ((0, 2),)
    )
    short = shortened(row, 4)
    assert short is not None
    assert (short.ids, short.prompt_ids, short.labels) == ((10, 14), (10,), (-100, 14))
    # Nothing would be left of a value that is only that character.
    assert shortened(replace(row, fields=((1, 2),)), 4) is None


def test_a_prompt_without_values_cannot_be_shortened() -> None:
    assert shortened(replace(ROW, fields=()), 8) is None


@given(st.integers(1, 200), st.integers(2, 50))
def test_windows_predict_every_token_but_the_first_once(tokens: int, length: int) -> None:
    ranges = list(windows(tokens, length))
    targets = [index for start, end in ranges for index in range(start + 1, end)]
    assert targets == list(range(1, tokens))
    assert all(0 < end - start <= length for start, end in ranges)
    assert len(ranges) == 1 or all(end - start >= 2 for start, end in ranges)
