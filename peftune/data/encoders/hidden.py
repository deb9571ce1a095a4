"""Plain texts become tokens of which parts will be hidden, for models that read both directions."""

from collections.abc import Sequence
from typing import Any

from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.rows import IGNORED, EncodedRow, Fault, Outcome


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise texts as the tokenizer writes them and apply `data.overlong`, keeping their order.

    `labels` are the row's own tokens where they may be hidden, which the tokenizer's additions may
    not; what is hidden is drawn anew in every step (corruption.py). `split` cuts into parts of equal
    length, each with the tokenizer's additions. `closing_id` ends a text that would have no end.
    """
    if not examples:
        return []
    texts = [example.completion for example in examples]
    encodings = job.tokenizer(texts, verbose=False).encodings
    return [_outcome(*pair, job) for pair in zip(examples, encodings, strict=True)]


def _outcome(example: Example, encoding: Any, job: Encoding) -> Outcome:
    front, text, behind = _parts(encoding, job.closing_id)
    section, total = job.section, len(front) + len(text) + len(behind)
    long = total > section.max_length
    room = section.max_length - len(front) - len(behind) if long else max(len(text), 1)
    starts: Sequence[int] = range(0, len(text), room)
    fault: Fault | None = None
    if not text:
        fault = "no_target"
    elif long and section.overlong != "split":
        starts, fault = (), "overlong" if section.overlong == "error" else None
    rows = tuple(_row(front, text[at : at + room], behind, example.row) for at in starts)
    unknown = job.unknown_id
    return Outcome(
        row=example.row,
        rows=rows,
        tokens=total,
        targets=len(text),
        kept=sum(len(row.input_ids) for row in rows),
        fault=fault,
        changed=long,
        end_id=job.closing_id,
        unknown=text.count(unknown) if unknown is not None else 0,
    )


def _parts(encoding: Any, closing_id: int | None) -> tuple[list[int], list[int], list[int]]:
    """What the tokenizer put in front, the text's own tokens, and what is behind."""
    ids, added = encoding.ids, encoding.special_tokens_mask
    own = [index for index, special in enumerate(added) if not special]
    first, last = (own[0], own[-1] + 1) if own else (len(ids), len(ids))
    behind = ids[last:]
    if closing_id is not None and closing_id not in behind:
        behind = [closing_id, *behind]
    return ids[:first], ids[first:last], behind


def _row(front: list[int], text: list[int], behind: list[int], row: int) -> EncodedRow:
    labels = (*[IGNORED] * len(front), *text, *[IGNORED] * len(behind))
    return EncodedRow((*front, *text, *behind), labels, (), row)
