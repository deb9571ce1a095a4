"""What becomes of a row with more tokens than `data.max_length`."""

from collections.abc import Iterator
from dataclasses import dataclass

from peftune.data.template import Spans


@dataclass(frozen=True)
class TokenizedRow:
    """A row's tokens, each with its character span in the rendered text."""

    row: int
    ids: tuple[int, ...]
    spans: Spans
    labels: tuple[int, ...]
    """The ids that are learnt, -100 for the others and for the first: nothing could predict it."""
    prompt_ids: tuple[int, ...]
    prompt_spans: Spans
    fields: Spans
    """Character spans of the column values in the prompt."""


def windows(tokens: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut `tokens` tokens into index ranges of at most `length` that overlap by one token.

    The first token of a later window is the last of the one before: it gives the next token
    something to be predicted from, and is itself learnt in the earlier window only. So every token
    but the very first is a target exactly once.
    """
    for start in range(0, max(tokens - 1, 1), length - 1):
        yield start, min(start + length, tokens)


def shortened(row: TokenizedRow, length: int) -> TokenizedRow | None:
    """The row without as many prompt tokens as it has over `length`; None if that cannot be.

    Tokens go that lie wholly inside a column value, from the end of the longest value first; the
    template's own words and the completion stay whole. At least one token of the values is kept.
    """
    excess = len(row.ids) - length
    values = sorted((_inside(row.spans, field) for field in row.fields), key=len, reverse=True)
    dropped: set[int] = set()
    dropped_text: list[tuple[int, int]] = []
    for value in values:
        cut = _cut_from_end(value, row.spans, excess - len(dropped))
        if cut:
            dropped.update(cut)
            dropped_text.append((row.spans[cut[0]][0], row.spans[cut[-1]][1]))
    if len(dropped) == sum(map(len, values)):
        return None
    return _without(row, dropped, dropped_text)


def _inside(spans: Spans, text: tuple[int, int]) -> range:
    """The tokens from the first to the last that lie wholly inside a stretch of text.

    Tokens of no width, as some tokenizers report for blanks, count only between two others.
    """
    inside = [
        index for index, (start, end) in enumerate(spans) if text[0] <= start < end <= text[1]
    ]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def _cut_from_end(value: range, spans: Spans, count: int) -> range:
    """The last `count` tokens of a value, and those before them that share their character."""
    if count <= 0:
        return range(0)
    first = max(len(value) - count, 0)
    while first > 0 and spans[value[first - 1]][1] > spans[value[first]][0]:
        first -= 1
    return value[first:]


def _without(
    row: TokenizedRow, dropped: set[int], dropped_text: list[tuple[int, int]]
) -> TokenizedRow:
    kept = [index for index in range(len(row.ids)) if index not in dropped]
    prompt_dropped = {i for text in dropped_text for i in _inside(row.prompt_spans, text)}
    prompt_kept = [index for index in range(len(row.prompt_ids)) if index not in prompt_dropped]
    return TokenizedRow(
        row=row.row,
        ids=tuple(row.ids[index] for index in kept),
        spans=tuple(row.spans[index] for index in kept),
        labels=tuple(row.labels[index] for index in kept),
        prompt_ids=tuple(row.prompt_ids[index] for index in prompt_kept),
        prompt_spans=tuple(row.prompt_spans[index] for index in prompt_kept),
        fields=row.fields,
    )
