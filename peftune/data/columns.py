"""Whether the columns that a task reads are there and hold what they should."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peftune.data.section import SPLITS
from peftune.data.table import Row, Table, json_kind
from peftune.errors import DataError, did_you_mean


def require_column(table: Table, key: str, column: str) -> None:
    """Raise DataError when no row has the column that `key` names."""
    if column in table.columns:
        return
    columns = table.all_columns
    if not columns:
        raise DataError(f"{table.key}: the rows of {table.place} have no columns.")
    if column not in columns:
        files = {f"data.{split}" for split in SPLITS}
        where = table.key if table.key in files else table.place
        raise DataError(
            f"{key}: no column named {column!r} in {where}.{did_you_mean(column, columns)} "
            f"The columns are: {', '.join(columns)}."
        )


@dataclass(frozen=True)
class Check:
    """One column of a row and what may be wrong with its values."""

    key: str
    """The recipe key that names the column."""
    column: str
    problem_of: Callable[[Row, str], str | None]
    """What is wrong with a row's value, as the end of a sentence; None for nothing."""
    required: bool = True
    """Whether some row must have the column."""


@dataclass(frozen=True)
class Problem:
    """Why a row is no example."""

    row: int
    """Position in the source of its split, from 0."""
    order: int
    """Which check it did not pass; the first check's problems are told first."""
    text: str
    """Key, column and what is wrong, without how often."""


def first_problem(position: int, row: Row, checks: Sequence[Check]) -> Problem | None:
    """The first check that a row does not pass."""
    for order, check in enumerate(checks):
        problem = check.problem_of(row, check.column)
        if problem is not None:
            return Problem(position, order, f"{check.key}: column {check.column!r} {problem}")
    return None


def text_problem(row: Row, column: str) -> str | None:
    """What is wrong with a text, as the end of a sentence; None for nothing."""
    if column not in row:
        return "is missing"
    value = row[column]
    if not isinstance(value, str):
        return f"is {json_kind(value)}, not text,"
    return unicode_problem(value) or ("is blank" if not value.strip() else None)


def unicode_problem(text: str) -> str | None:
    """JSON can spell half of a surrogate pair, which no tokenizer and no file can take."""
    lone = not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
    return "holds half a surrogate pair (\\ud800 to \\udfff)" if lone else None
