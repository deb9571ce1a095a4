"""Words with a tag each become tokens, of which the first of each word has the tag to learn."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.rows import IGNORED, EncodedRow, Fault, Outcome


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise words, joined by blanks, and apply `data.overlong`, keeping their order.

    Words are tokenised as running text and found again by their characters, so that each kind of
    tokenizer marks the beginning of a word as it does in the texts that its model knows; a
    tokenizer that gets a list of words may leave the mark out. A word's tag is learnt at its first
    token and nowhere else. `split` cuts between words; of a word that is longer than a row by
    itself the first tokens are kept.
    """
    if not examples:
        return []
    ids = {name: index for index, name in enumerate(job.labels)}
    encodings = job.tokenizer([" ".join(e.words) for e in examples], verbose=False).encodings
    return [
        _outcome(example, encoding, ids, job)
        for example, encoding in zip(examples, encodings, strict=True)
    ]


def _outcome(example: Example, encoding: Any, ids: dict[str, int], job: Encoding) -> Outcome:
    firsts = first_tokens(example.words, encoding)
    long = len(encoding.ids) > job.section.max_length
    rows: tuple[EncodedRow, ...] = ()
    fault: Fault | None = None
    if None in firsts:
        fault = "untokenized_word"
    elif any(tag not in ids for tag in example.label):
        fault = "unknown_label"
    elif long and job.section.overlong == "error":
        fault = "overlong"
    elif not long or job.section.overlong == "split":
        rows = tuple(_rows(example, encoding, firsts, ids, job))
    unknown = job.unknown_id
    return Outcome(
        row=example.row,
        rows=rows,
        tokens=len(encoding.ids),
        targets=len(example.words),
        kept=sum(len(row.input_ids) for row in rows),
        fault=fault,
        changed=long,
        unknown=encoding.ids.count(unknown) if unknown is not None else 0,
    )


def first_tokens(words: Sequence[str], encoding: Any) -> list[int | None]:
    """The index of each word's first token; None for a word that the tokenizer drops.

    A token belongs to the word of its last character, as it may begin with the blank in front.
    """
    starts = [0, *accumulate(len(word) + 1 for word in words[:-1])]
    firsts: list[int | None] = [None] * len(words)
    for index, (start, end) in enumerate(encoding.offsets):
        if encoding.special_tokens_mask[index] or start == end:
            continue
        word = bisect_right(starts, end - 1) - 1
        inside = end - 1 < starts[word] + len(words[word])
        if inside and firsts[word] is None:
            firsts[word] = index
    return firsts


def _rows(
    example: Example, encoding: Any, firsts: Sequence[Any], ids: dict[str, int], job: Encoding
) -> Iterator[EncodedRow]:
    """One row, or several of at most `data.max_length` tokens, each with the special tokens."""
    added = encoding.special_tokens_mask
    front = next(index for index, special in enumerate(added) if not special)
    behind = next(index for index, special in enumerate(reversed(added)) if not special)
    total = len(encoding.ids)
    borders = [front, *firsts[1:], total - behind]
    labels = [IGNORED] * total
    for first, tag in zip(firsts, example.label, strict=True):
        labels[first] = ids[tag]
    types = encoding.type_ids if "token_type_ids" in job.tokenizer.model_input_names else []
    for start, end in windows(borders, job.section.max_length - front - behind):
        picked = [*range(front), *range(start, end), *range(total - behind, total)]
        yield EncodedRow(
            input_ids=tuple(encoding.ids[i] for i in picked),
            labels=tuple(labels[i] for i in picked),
            prompt_ids=(),
            row=example.row,
            token_type_ids=tuple(types[i] for i in picked) if types else (),
        )


def windows(borders: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Cut a row at `borders`, the first tokens of its words and its end, into parts of `room` tokens.

    Every word is in exactly one part. A word of more than `room` tokens is a part of its own and
    loses its last tokens, which have no tag to learn.
    """
    start = borders[0]
    for word, following in pairwise(borders[1:]):
        if following - start > room:
            yield start, min(word, start + room)
            start = word
    yield start, min(borders[-1], start + room)
