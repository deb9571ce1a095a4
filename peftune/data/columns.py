"""Whether the columns that a task reads are there and hold what they should."""

from collections.abc import Callable

from peftune.data.files import Row, Table, json_kind
from peftune.errors import DataError, did_you_mean


def require_column(table: Table, key: str, column: str) -> None:
    """Raise DataError when no row has the column that `key` names."""
    columns = table.columns
    if not columns:
        raise DataError(f"{table.key}: the rows of {table.place} have no columns.")
    if column not in columns:
        where = table.key if table.key != "data.path" else table.place
        raise DataError(
            f"{key}: no column named {column!r} in {where}.{did_you_mean(column, columns)} "
            f"The columns are: {', '.join(columns)}."
        )


def require_values(
    table: Table, key: str, column: str, problem_of: Callable[[Row, str], str | None]
) -> None:
    """Raise DataError for the first problem that `problem_of` finds, with the count of its kind."""
    problems = [(position, problem_of(row, column)) for position, row in table.rows]
    first = next(((position, problem) for position, problem in problems if problem), None)
    if first is not None:
        position, problem = first
        alike = sum(problem == other for _, other in problems)
        raise DataError(f"{key}: column {column!r} {problem} in {share(table, alike, position)}.")


def share(table: Table, count: int, first: int) -> str:
    """How many rows have a problem, and where the first one stands."""
    return f"{count:,} of {len(table.rows):,} rows; the first is {table.at(first)}"


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
