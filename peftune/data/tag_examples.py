"""Rows of words with a tag each."""

from typing import Any

from peftune.data.columns import Check, unicode_problem
from peftune.data.roles import column_of
from peftune.data.section import DataSection
from peftune.data.table import Row, json_kind


def tag_checks(section: DataSection) -> tuple[Check, ...]:
    """What is asked of the words and tags of a row; tags that are numbers are ids of `data.labels`."""
    words, tags = column_of(section, "words"), column_of(section, "tags")

    def problem(row: Row, column: str) -> str | None:
        return (
            _tags_problem(row, column)
            or _pairs_problem(row, words, column)
            or _ids_problem(row, column, len(section.labels))
        )

    return (
        Check("data.columns: words", words, _words_problem),
        Check("data.columns: tags", tags, problem),
    )


def tagged_words(row: Row, section: DataSection) -> tuple[tuple[str, ...], list[str]]:
    """The words of a row that passed the checks, and the name of each word's tag."""
    tags = row[column_of(section, "tags")]
    return tuple(row[column_of(section, "words")]), [_name(tag, section.labels) for tag in tags]


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


def _pairs_problem(row: Row, words: str, tags: str) -> str | None:
    if len(row[words]) == len(row[tags]):
        return None
    return f"does not hold as many tags as column {words!r} has words"


def _ids_problem(row: Row, column: str, known: int) -> str | None:
    """Every number must be the id of a label."""
    number = next(
        (tag for tag in row[column] if isinstance(tag, int) and not 0 <= tag < known), None
    )
    if number is None:
        return None
    if not known:
        return "holds numbers (name the tags in data.labels in the order of their ids)"
    return f"holds the number {number}, and the ids of data.labels are 0 to {known - 1},"


def _name(tag: str | int, labels: tuple[str, ...]) -> str:
    return tag if isinstance(tag, str) else labels[tag]
