"""Labels of rows: which there are, in which order, and what they become as numbers."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from peftune.data.section import DataSection, Split
from peftune.data.table import Row, json_kind
from peftune.errors import DataError, did_you_mean
from peftune.objectives import ObjectiveName

if TYPE_CHECKING:
    from peftune.data.examples import Example

OBJECTIVES: dict[str, ObjectiveName] = {
    "single_label_classification": "label",
    "multi_label_classification": "labels",
    "regression": "value",
}
KEY = "data.columns: label"


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


def label_objective(section: DataSection, training: Sequence["Example"]) -> ObjectiveName:
    """What is learnt: one label, several, or a value. Raises DataError for rows of two kinds."""
    if section.problem_type is not None:
        return OBJECTIVES[section.problem_type]
    kinds = {_kind(example.label) for example in training}
    if len(kinds) > 1:
        raise DataError(
            f"{KEY}: the training rows hold labels of different kinds ({', '.join(sorted(kinds))}). "
            "Make them alike, or set data.problem_type."
        )
    return OBJECTIVES[kinds.pop()]


def _kind(label: Any) -> str:
    if isinstance(label, list):
        return "multi_label_classification"
    return "regression" if isinstance(label, float) else "single_label_classification"


def label_names(
    section: DataSection, objective: ObjectiveName, examples: Mapping[Split, Sequence["Example"]]
) -> tuple[str, ...]:
    """The labels in the order of their ids.

    Raises DataError for a label that no training row has, or that `data.labels` does not name, and
    when there is nothing to tell apart.
    """
    if objective == "value":
        _check_values(examples)
        return ("value",)
    if objective == "label":
        _check_single(examples)
    seen = {split: _labels(examples[split]) for split in examples}
    names = section.labels or tuple(sorted(seen["train"], key=_order))
    for split, labels in seen.items():
        unknown = sorted(labels - set(names))
        if unknown:
            raise DataError(_unknown_message(section, split, unknown, names))
    if len(set(names)) < len(names):
        raise DataError("data.labels: a label is named twice.")
    untrained = sorted(set(names) - seen["train"])
    if untrained:
        raise DataError(f"data.labels: no training row is labelled {untrained[0]!r}; remove it.")
    if objective == "label" and len(names) < 2:
        raise DataError(f"{KEY}: every training row is labelled {names[0]!r}.")
    return names


def _check_values(examples: Mapping[Split, Sequence["Example"]]) -> None:
    for split, rows in examples.items():
        for example in rows:
            try:
                number = float(example.label)
            except (TypeError, ValueError):
                number = float("nan")
            if not isfinite(number):
                raise DataError(
                    f"{KEY}: {example.label!r} is not a number (row {example.row + 1} of {split})."
                )


def _check_single(examples: Mapping[Split, Sequence["Example"]]) -> None:
    """One label is learnt: of a list the others would be lost."""
    for split, rows in examples.items():
        for example in rows:
            if isinstance(example.label, list):
                raise DataError(
                    f"{KEY}: row {example.row + 1} of {split} has a list of labels, and one label is "
                    "learnt. Set data.problem_type: multi_label_classification."
                )


def _labels(examples: Sequence["Example"]) -> set[str]:
    return {name for example in examples for name in names_of(example.label)}


def names_of(label: Any) -> list[str]:
    """The names in one row's label."""
    return label if isinstance(label, list) else [str(label)]


def _order(name: str) -> tuple[int, int, str]:
    """Numbers by their value, before words."""
    digits = name.removeprefix("-").isdecimal()
    return (0, int(name), name) if digits else (1, 0, name)


def _unknown_message(
    section: DataSection, split: Split, unknown: list[str], names: Sequence[str]
) -> str:
    known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    where = "data.labels does not name it" if section.labels else "no training row has it"
    return (
        f"{KEY}: {split} rows are labelled {unknown[0]!r}, and {where}."
        f"{did_you_mean(unknown[0], names)} The labels are: {known}."
    )


def encoded_label(
    label: Any, objective: ObjectiveName, ids: Mapping[str, int]
) -> tuple[float, ...]:
    """The numbers of one row: a class, a 0 or 1 for each label, or a value."""
    if objective == "value":
        return (float(label),)
    found = [ids[name] for name in names_of(label)]
    if objective == "label":
        return (found[0],)
    return tuple(float(index in found) for index in range(len(ids)))
