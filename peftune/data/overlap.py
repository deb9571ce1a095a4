"""Keeps the splits apart: what is tested must not have been trained on."""

import re
from collections.abc import Mapping, Sequence

from peftune.data.examples import Example
from peftune.data.order import permutation
from peftune.data.section import Split
from peftune.data.table import Table
from peftune.errors import DataError

NOT_A_WORD = re.compile(r"[\W_]+")


def normalized(source: str) -> str:
    """The text without case, white space and punctuation; unchanged when nothing else is in it."""
    return NOT_A_WORD.sub("", source.casefold()) or source.strip()


def check_overlap(
    examples: Mapping[Split, Sequence[Example]], tables: Mapping[Split, Table]
) -> None:
    """Raise DataError when a validation or test row asks what a training row answers.

    Two rows overlap when their sources agree, blind to case, white space and punctuation. The
    completion does not count: a question that was trained with another answer is no test either.
    Repeated rows inside one split are allowed.
    """
    trained: dict[str, Example] = {}
    for example in examples["train"]:
        trained.setdefault(normalized(example.source), example)
    for split in ("validation", "test"):
        pairs = [
            (example, trained[key])
            for example in examples[split]
            if (key := normalized(example.source)) in trained
        ]
        if pairs:
            raise DataError(_overlap_message(split, pairs, len(examples[split]), tables))


def _overlap_message(
    split: Split, pairs: list[tuple[Example, Example]], rows: int, tables: Mapping[Split, Table]
) -> str:
    held_out, trained = pairs[0]
    exact = sum(one.source == other.source for one, other in pairs)
    return (
        f"{tables[split].key}: {len(pairs):,} of {rows:,} {split} rows are also trained on "
        f"({exact:,} letter for letter); the first is {tables[split].at(held_out.row)}, the same "
        f"as {tables['train'].at(trained.row)}. Remove them from one of the two."
    )


def set_aside(
    examples: Sequence[Example], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Cut examples into (training, validation); equal sources always fall on the same side.

    Sources are drawn in the order of a permutation that depends on `seed` until the validation side
    has at least `fraction` of the rows. Both sides keep the order of the file. Raises DataError
    when the training side would be empty.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(normalized(example.source), []).append(index)
    members = list(groups.values())
    wanted = max(1, round(fraction * len(examples)))
    chosen: set[int] = set()
    for group in permutation(seed, 0, len(members)):
        if len(chosen) >= wanted:
            break
        chosen.update(members[group])
    if len(chosen) == len(examples):
        raise DataError(
            f"data.validation_fraction: {fraction} of {len(examples):,} rows leaves no row to "
            "train on."
        )
    training = [example for index, example in enumerate(examples) if index not in chosen]
    return training, [examples[index] for index in sorted(chosen)]
