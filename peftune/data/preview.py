"""Rows as the model sees them, for people to look at before anything is trained."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from peftune.data.rows import IGNORED, EncodedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LEARNT = "bold green"
SPECIAL = "reverse"
# Decoders strip or join at the start of a text; a few tokens of context make it read as in the row.
CONTEXT_TOKENS = 8


def preview(
    rows: Sequence[EncodedRow], tokenizer: "PreTrainedTokenizerFast", count: int
) -> list[Text]:
    """The first `count` rows, decoded: learnt tokens green, special tokens shown and reversed."""
    return [_row_text(row, tokenizer) for row in rows[:count]]


def _row_text(row: EncodedRow, tokenizer: "PreTrainedTokenizerFast") -> Text:
    learnt = sum(label != IGNORED for label in row.labels)
    text = Text(f"row {row.row + 1}: {len(row.input_ids)} tokens, {learnt} learnt (green)\n", "dim")
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    shown = Text()
    for start, end, piece in _pieces(row.input_ids, tokenizer):
        styles = [LEARNT] if row.labels[end - 1] != IGNORED else []
        styles += [SPECIAL] if row.input_ids[start] in special else []
        shown.append(piece, " ".join(styles) or None)
    return Text.assemble(text, shown)


def _pieces(
    ids: Sequence[int], tokenizer: "PreTrainedTokenizerFast"
) -> Iterator[tuple[int, int, str]]:
    """(start, end, text) of each token, or of the tokens that make up one character together."""
    start = 0
    for end in range(1, len(ids) + 1):
        context = max(start - CONTEXT_TOKENS, 0)
        before = _decode(ids[context:start], tokenizer)
        piece = _decode(ids[context:end], tokenizer)[len(before) :]
        if not piece.endswith("\ufffd") or end == len(ids):
            yield start, end, piece
            start = end


def _decode(ids: Sequence[int], tokenizer: "PreTrainedTokenizerFast") -> str:
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text
