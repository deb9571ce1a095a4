"""Examples with labels become token ids and numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftune.data.encoding import EncodedRow, EncodingReport, require_kept
from peftune.data.examples import Example
from peftune.data.labels import encoded_label
from peftune.data.section import DataSection, Split
from peftune.errors import DataError
from peftune.objectives import ObjectiveName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def encode_labelled(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    section: DataSection,
    split: Split,
    objective: ObjectiveName,
    names: tuple[str, ...],
    end_token_id: int | None = None,
) -> tuple[list[EncodedRow], EncodingReport]:
    """Tokenise the texts of a split, pairs as the tokenizer joins them, and apply `data.overlong`.

    `end_token_id` closes each row that its tokenizer leaves open, for a head that reads the score at
    the end token. `truncate_prompt` cuts from the end of the longer text. Raises DataError when
    rows are too long.
    """
    ids = {name: index for index, name in enumerate(names)}
    whole = _tokenized(examples, tokenizer, end_token_id)
    long = {i for i, row in enumerate(whole) if len(row["input_ids"]) > section.max_length}
    if long and section.overlong == "error":
        raise DataError(_overlong_message(long, whole, examples, section, split))
    cut = _tokenized(examples, tokenizer, end_token_id, section.max_length) if long else whole
    rows = [
        EncodedRow(
            input_ids=tuple(encoded["input_ids"]),
            labels=encoded_label(example.label, objective, ids),
            prompt_ids=(),
            row=example.row,
            token_type_ids=tuple(encoded.get("token_type_ids", ())),
        )
        for index, (example, encoded) in enumerate(zip(examples, cut, strict=True))
        if index not in long or section.overlong == "truncate_prompt"
    ]
    require_kept(rows, len(examples), section, split)
    longest = max((len(row["input_ids"]) for row in whole), default=0)
    truncated = len(long) if section.overlong == "truncate_prompt" else 0
    return rows, _report(rows, split, len(examples), truncated, longest)


def _report(
    rows: Sequence[EncodedRow], split: Split, examples: int, truncated: int, longest: int
) -> EncodingReport:
    return EncodingReport(
        split=split,
        examples=examples,
        rows=len(rows),
        dropped=examples - len(rows),
        truncated=truncated,
        windows=0,
        learnt_tokens=sum(len(row.labels) for row in rows),
        total_tokens=sum(len(row.input_ids) for row in rows),
        longest=longest,
        end_ids=(),
        learnt="labels",
    )


def _tokenized(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    end_token_id: int | None,
    max_length: int | None = None,
) -> list[dict[str, list[int]]]:
    if not examples:
        return []
    pairs = [example.pair for example in examples] if any(e.pair for e in examples) else None
    appended = 1 if end_token_id is not None else 0
    encoded = tokenizer(
        [example.prompt for example in examples],
        pairs,
        truncation="longest_first" if max_length else False,
        max_length=max_length - appended if max_length else None,
        return_attention_mask=False,
        verbose=False,
    )
    rows = [{name: encoded[name][i] for name in encoded} for i in range(len(examples))]
    return [_closed(row, end_token_id) for row in rows]


def _closed(row: dict[str, list[int]], end_token_id: int | None) -> dict[str, list[int]]:
    if end_token_id is None or row["input_ids"][-1:] == [end_token_id]:
        return row
    types = row.get("token_type_ids")
    closed = {"input_ids": [*row["input_ids"], end_token_id]}
    return closed | {"token_type_ids": [*types, types[-1]]} if types else closed


def _overlong_message(
    long: set[int],
    rows: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    section: DataSection,
    split: Split,
) -> str:
    longest = max(long, key=lambda index: len(rows[index]["input_ids"]))
    return (
        f"data.max_length: {len(long):,} of {len(rows):,} {split} rows are longer than "
        f"{section.max_length} tokens; the longest is row {examples[longest].row + 1} with "
        f"{len(rows[longest]['input_ids']):,}. Raise data.max_length, or set data.overlong: drop or "
        "truncate_prompt."
    )
