"""Rows of words with a tag each."""

from collections.abc import Iterator
from typing import Any

from peftune.data.columns import require_column, require_values, share, unicode_problem
from peftune.data.files import Row, Table, json_kind
from peftune.data.roles import column_of
from peftune.data.section import DataSection
from peftune.errors import DataError

Tagged = tuple[int, tuple[str, ...], list[str]]
"""Position of the row in its source, its words, and the name of each word's tag."""


def tagged_words(table: Table, section: DataSection) -> Iterator[Tagged]:
    """The words and tag names of every row; tags that are numbers are ids of `data.labels`.

    Raises DataError for rows without words, for a word or tag that is none, and for rows whose words
    and tags are not equally many.
    """
    words, tags = column_of(section, "words"), column_of(section, "tags")
    for role, column, problem in (("words", words, _words_problem), ("tags", tags, _tags_problem)):
        require_column(table, f"data.columns: {role}", column)
        require_values(table, f"data.columns: {role}", column, problem)
    _require_pairs(table, words, tags)
    _require_names(table, section, tags)
    for position, row in table.rows:
        names = [_name(tag, section.labels) for tag in row[tags]]
        yield position, tuple(row[words]), names


def _words_problem(row: Row, column: str) -> str | None:
    problem = _list_problem(row, column, str)
    if problem is None and not row[column]:
        return "is an empty list"
    return problem or next(filter(None, map(_word_problem, row[column])), None)


def _word_problem(word: str) -> str | None:
    return unicode_problem(word) or (None if word.strip() else "holds a blank word")


def _tags_problem(row: Row, column: str) -> str | None:
    problem = _list_problem(row, column, str | int)
    if problem is None and any(isinstance(tag, str) and not tag.strip() for tag in row[column]):
        return "holds a blank tag"
    return problem


def _list_problem(row: Row, column: str, kind: Any) -> str | None:
    if column not in row:
        return "is missing"
    value = row[column]
    if not isinstance(value, list):
        return f"is {json_kind(value)}, not a list with an entry for each word,"
    odd = next((item for item in value if isinstance(item, bool) or not isinstance(item, kind)), 0)
    return f"holds {json_kind(odd)}" if odd != 0 else None


def _require_pairs(table: Table, words: str, tags: str) -> None:
    uneven = [at for at, row in table.rows if len(row[words]) != len(row[tags])]
    if uneven:
        row = next(row for at, row in table.rows if at == uneven[0])
        raise DataError(
            f"data.columns: tags: words and tags are not equally many in "
            f"{share(table, len(uneven), uneven[0])} with {len(row[words]):,} words and "
            f"{len(row[tags]):,} tags."
        )


def _require_names(table: Table, section: DataSection, column: str) -> None:
    """Every number must be the id of a label."""
    known = len(section.labels)
    for position, row in table.rows:
        number = next(
            (tag for tag in row[column] if isinstance(tag, int) and not 0 <= tag < known), None
        )
        if number is not None and not known:
            raise DataError(
                f"data.labels: column {column!r} holds numbers; name the tags in the order of their "
                "ids, e.g. [O, B-PER, I-PER]."
            )
        if number is not None:
            raise DataError(
                f"data.labels: {table.at(position)} has the tag {number}, and the ids of the "
                f"{known} labels are 0 to {known - 1}."
            )


def _name(tag: str | int, labels: tuple[str, ...]) -> str:
    return tag if isinstance(tag, str) else labels[tag]
