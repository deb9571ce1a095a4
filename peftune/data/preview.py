"""Rows as the model sees them, for people to look at before anything is trained."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from peftune.data.rows import IGNORED, EncodedRow
from peftune.objectives import ObjectiveName
from peftune.records import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LEARNT = "bold green"
SPECIAL = "reverse"
ARROW = "  →  "
# Decoders strip or join at the start of a text; a few tokens of context make it read as in the row.
CONTEXT_TOKENS = 8


def preview(
    rows: Sequence[EncodedRow],
    tokenizer: "PreTrainedTokenizerFast",
    objective: ObjectiveName,
    names: Sequence[str],
    count: int,
) -> list[Text]:
    """The first `count` rows, decoded: what is learnt is green, special tokens are reversed.

    `names` are those of the labels. A target that is no part of the row follows after an arrow.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [_row_text(row, tokenizer, special, objective, names) for row in rows[:count]]


def _row_text(
    row: EncodedRow,
    tokenizer: "PreTrainedTokenizerFast",
    special: set[int],
    objective: ObjectiveName,
    names: Sequence[str],
) -> Text:
    learnt = _learnt_tokens(row, objective)
    shown = _decoded(row.input_ids, learnt, tokenizer, special)
    match objective:
        case "seq2seq" | "masked" | "corrupted":
            ids = [int(label) for label in row.labels if label != IGNORED]
            target = _decoded(ids, [True] * len(ids), tokenizer, special)
            shown = Text.assemble(shown, ARROW, target)
        case "tags":
            tags = [names[int(label)] for label in row.labels if label != IGNORED]
            shown = Text.assemble(shown, ARROW, (" ".join(tags), LEARNT))
        case "label" | "labels" | "value":
            shown = Text.assemble(shown, ARROW, (_label(row, objective, names), LEARNT))
    count = _count(row, objective, learnt)
    return Text.assemble(
        (f"row {row.row + 1}: {len(row.input_ids)} tokens, {count}\n", "dim"), shown
    )


def _learnt_tokens(row: EncodedRow, objective: ObjectiveName) -> list[bool]:
    """Which of the row's own tokens are learnt, or point at what is."""
    match objective:
        case "causal" | "tags" | "masked":
            return [label != IGNORED for label in row.labels]
        case "span":
            first, last = row.labels
            return [first <= index <= last for index in range(len(row.input_ids))]
    return [False] * len(row.input_ids)


def _count(row: EncodedRow, objective: ObjectiveName, learnt: Sequence[bool]) -> str:
    match objective:
        case "label" | "labels" | "value":
            return "the label is learnt (green)"
        case "seq2seq" | "corrupted":
            return f"{len(row.labels)} more learnt (green)"
        case "span":
            return "the answer's first and last are learnt (green)"
        case "tags":
            return f"the tags of {sum(learnt)} words are learnt (green)"
    return f"{sum(learnt)} learnt (green)"


def _label(row: EncodedRow, objective: ObjectiveName, names: Sequence[str]) -> str:
    match objective:
        case "label":
            return names[int(row.labels[0])]
        case "labels":
            return (
                ", ".join(n for n, there in zip(names, row.labels, strict=True) if there) or "none"
            )
    return f"{row.labels[0]:g}"


def _decoded(
    ids: Sequence[int],
    learnt: Sequence[bool],
    tokenizer: "PreTrainedTokenizerFast",
    special: set[int],
) -> Text:
    shown = Text()
    for start, end, piece in _pieces(ids, tokenizer):
        styles = [LEARNT] if learnt[end - 1] else []
        styles += [SPECIAL] if ids[start] in special else []
        shown.append(piece, " ".join(styles) or None)
    return shown


def write_html(texts: Sequence[Text], file: Path) -> None:
    """The same as one page that needs no other file."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=120, file=nowhere)
        for text in texts:
            console.print(text, end="\n\n")
    write_text(file, console.export_html(inline_styles=True))


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
