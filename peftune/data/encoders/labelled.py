"""Examples with labels become token ids and numbers."""

from collections.abc import Sequence
from typing import Any

from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.labels import encoded_label
from peftune.data.rows import EncodedRow, Outcome

Tokens = dict[str, list[int]]


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise texts, pairs as the tokenizer joins them, and apply `data.overlong`.

    `truncate_prompt` cuts from the end of the longer text.
    """
    ids = {name: index for index, name in enumerate(job.labels)}
    limit = job.section.max_length
    whole = _tokenized(examples, job, None)
    cut = whole
    if any(len(row["input_ids"]) > limit for row in whole):
        cut = _tokenized(examples, job, limit)
    return [
        _outcome(example, full, short, ids, job)
        for example, full, short in zip(examples, whole, cut, strict=True)
    ]


def _outcome(
    example: Example, full: Tokens, short: Tokens, ids: dict[str, int], job: Encoding
) -> Outcome:
    section, tokens = job.section, len(full["input_ids"])
    long = tokens > section.max_length
    labels = encoded_label(example.label, job.objective, ids)
    if labels is None:
        return Outcome(example.row, (), tokens, 0, fault="unknown_label")
    row = EncodedRow(
        input_ids=tuple(short["input_ids"]),
        labels=labels,
        prompt_ids=(),
        row=example.row,
        token_type_ids=tuple(short.get("token_type_ids", ())),
    )
    unknown = job.unknown_id
    keeps = not long or section.overlong == "truncate_prompt"
    return Outcome(
        row=example.row,
        rows=(row,) if keeps else (),
        tokens=tokens,
        targets=len(labels),
        kept=len(row.input_ids) if keeps else 0,
        fault="overlong" if long and section.overlong == "error" else None,
        changed=long,
        unknown=full["input_ids"].count(unknown) if unknown is not None else 0,
    )


def _tokenized(
    examples: Sequence[Example], job: Encoding, max_length: int | None
) -> list[dict[str, Any]]:
    if not examples:
        return []
    pairs = [example.pair for example in examples] if any(e.pair for e in examples) else None
    appended = 1 if job.closing_id is not None else 0
    encoded = job.tokenizer(
        [example.prompt for example in examples],
        pairs,
        truncation="longest_first" if max_length else False,
        max_length=max_length - appended if max_length else None,
        return_attention_mask=False,
        verbose=False,
    )
    rows = [{name: encoded[name][i] for name in encoded} for i in range(len(examples))]
    return [_closed(row, job.closing_id) for row in rows]


def _closed(row: Tokens, closing_id: int | None) -> Tokens:
    if closing_id is None or row["input_ids"][-1:] == [closing_id]:
        return row
    types = row.get("token_type_ids")
    closed = {"input_ids": [*row["input_ids"], closing_id]}
    return closed | {"token_type_ids": [*types, types[-1]]} if types else closed
