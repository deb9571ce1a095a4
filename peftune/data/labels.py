"""Labels of rows: which there are, in which order, and what they become as numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from peftune.data.section import DataSection, Split
from peftune.data.table import Row, Table, json_kind
from peftune.errors import DataError, did_you_mean
from peftune.objectives import ObjectiveName

OBJECTIVES: dict[str, ObjectiveName] = {
    "single_label_classification": "label",
    "multi_label_classification": "labels",
    "regression": "value",
}
KEY = "data.columns: label"
OUTSIDE = "O"
"""The tag of words that belong to nothing."""


def label_problem(row: Row, column: str) -> str | None:
    """What is wrong with the label of a row, as the end of a sentence; None for nothing."""
    if column not in row:
        return "is missing"
    value = row[column]
    if isinstance(value, list):
        alike = all(isinstance(item, str) and item.strip() for item in value)
        return None if alike else "is a list that holds something other than texts"
    if isinstance(value, str):
        return None if value.strip() else "is blank"
    if not isinstance(value, int | float):
        return f"is {json_kind(value)}, not a label,"
    return None if isfinite(value) else f"is {value}, not a label,"


def label_text(value: Any) -> str:
    """A label for people: several are joined by commas."""
    return ", ".join(value) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class LabelCounts:
    """The labels of one split."""

    kinds: tuple[str, ...]
    """What a label may be by its looks, as `data.problem_type` says it."""
    names: Mapping[str, int]
    """How many rows have each label."""
    first_list: str | None
    """The place of the first row with a list of labels."""
    not_a_number: tuple[str, str] | None
    """The first label that is no number, and its place."""


def count_labels(labels: Iterable[tuple[int, Any]], table: Table) -> LabelCounts:
    """Count the labels of a table, each with its position in the source."""
    kinds: dict[str, None] = {}
    names: Counter[str] = Counter()
    first_list, not_a_number = None, None
    for position, label in labels:
        kinds[_kind(label)] = None
        names.update(set(names_of(label)))
        if isinstance(label, list):
            first_list = first_list or table.at(position)
        if not_a_number is None and not _is_number(label):
            not_a_number = (str(label), table.at(position))
    return LabelCounts(tuple(kinds), names, first_list, not_a_number)


def _kind(label: Any) -> str:
    if isinstance(label, list):
        return "multi_label_classification"
    return "regression" if isinstance(label, float) else "single_label_classification"


def _is_number(label: Any) -> bool:
    try:
        return isfinite(float(label))
    except (TypeError, ValueError):
        return False


def label_objective(section: DataSection, training: LabelCounts) -> ObjectiveName:
    """What is learnt: one label, several, or a value. Raises DataError for rows of two kinds."""
    if section.problem_type is not None:
        return OBJECTIVES[section.problem_type]
    if len(training.kinds) > 1:
        raise DataError(
            f"{KEY}: the training rows hold labels of different kinds "
            f"({', '.join(sorted(training.kinds))}). Make them alike, or set data.problem_type."
        )
    return OBJECTIVES[training.kinds[0]]


def label_names(
    section: DataSection, objective: ObjectiveName, counts: Mapping[Split, LabelCounts]
) -> tuple[str, ...]:
    """The labels, or tags of words, in the order of their ids.

    Raises DataError for a label that no training row has, or that `data.labels` does not name, and
    when there is nothing to tell apart. `data.accept` with `unknown_label` leaves such labels to
    the gates. `data.labels` may name tags that no training row has: where tags are numbers, the list
    must be whole.
    """
    key = "data.columns: tags" if objective == "tags" else KEY
    if objective == "value":
        _check_values(counts)
        return ("value",)
    if objective == "label":
        _check_single(counts)
    trained = counts["train"].names
    names = section.labels or tuple(sorted(trained, key=_order))
    for split, found in counts.items():
        unknown = sorted(found.names.keys() - set(names))
        if unknown and "unknown_label" not in section.accept:
            raise DataError(_unknown_message(key, section, split, unknown, names))
    if len(set(names)) < len(names):
        raise DataError("data.labels: a label is named twice.")
    untrained = sorted(set(names) - trained.keys())
    if untrained and objective != "tags":
        raise DataError(f"data.labels: no training row is labelled {untrained[0]!r}; remove it.")
    if objective in ("label", "tags") and len(names) < 2:
        what = "word" if objective == "tags" else "training row"
        raise DataError(f"{key}: every {what} is labelled {names[0]!r}.")
    return names


def _check_values(counts: Mapping[Split, LabelCounts]) -> None:
    for split, found in counts.items():
        if found.not_a_number is not None:
            label, place = found.not_a_number
            raise DataError(f"{KEY}: {label!r} is not a number ({place}, {split}).")


def _check_single(counts: Mapping[Split, LabelCounts]) -> None:
    """One label is learnt: of a list the others would be lost."""
    for split, found in counts.items():
        if found.first_list is not None:
            raise DataError(
                f"{KEY}: {found.first_list} ({split}) has a list of labels, and one label is "
                "learnt. Set data.problem_type: multi_label_classification."
            )


def names_of(label: Any) -> list[str]:
    """The names in one row's label."""
    return label if isinstance(label, list) else [str(label)]


def _order(name: str) -> tuple[int, int, str]:
    """The tag of words outside first, then numbers by their value, then words."""
    if name == OUTSIDE:
        return (0, 0, name)
    digits = name.removeprefix("-").isdecimal()
    return (1, int(name), name) if digits else (2, 0, name)


def _unknown_message(
    key: str, section: DataSection, split: Split, unknown: list[str], names: Sequence[str]
) -> str:
    known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    where = "data.labels does not name it" if section.labels else "no training row has it"
    return (
        f"{key}: {split} rows are labelled {unknown[0]!r}, and {where}."
        f"{did_you_mean(unknown[0], names)} The labels are: {known}."
    )


def encoded_label(
    label: Any, objective: ObjectiveName, ids: Mapping[str, int]
) -> tuple[float, ...] | None:
    """The numbers of one row: a class, a 0 or 1 for each label, or a value.

    None for a label without an id.
    """
    if objective == "value":
        return (float(label),)
    if any(name not in ids for name in names_of(label)):
        return None
    found = [ids[name] for name in names_of(label)]
    if objective == "label":
        return (found[0],)
    return tuple(float(index in found) for index in range(len(ids)))
