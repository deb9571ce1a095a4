"""JSON: one list of objects, or SQuAD's nested articles."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from peftune.data.readers.reader import Extent, File, counted, not_utf8, numbered
from peftune.data.table import Piece, PlacedRow, Row, json_kind, listed
from peftune.errors import DataError


def rows(file: File) -> Iterator[PlacedRow]:
    """The objects of a list, of `{"data": [...]}`, or the questions of SQuAD's articles.

    JSON has one end, so the file is held in memory while it is read. Raises DataError.
    """
    entries = _entries(_parsed(file), file)
    for entry in entries:
        if not isinstance(entry, dict):
            raise DataError(f"{file.place}: the list must hold objects, not {json_kind(entry)}.")
    yield from enumerate(chain.from_iterable(map(_questions, entries)))


def pieces(file: File, size: int) -> Iterator[Piece]:
    return listed(rows(file), size)


def extent(file: File) -> Extent:
    return counted(rows(file))


def at(name: str, position: int) -> str:
    return numbered(name, position)


def _parsed(file: File) -> Any:
    with file.open() as opened:
        content = opened.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(file.place, error.start) from error
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and content.lstrip().startswith(b"{")
        hint = " One object a line is JSON Lines: call the file .jsonl." if lines else ""
        raise DataError(
            f"{file.place}:{error.lineno}: malformed JSON: {error.msg} (character {error.colno})."
            f"{hint}"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{file.place}: JSON that cannot be read: {reason}.") from error


def _entries(value: Any, file: File) -> list[Any]:
    inner = value.get("data") if isinstance(value, dict) else value
    if not isinstance(inner, list):
        raise DataError(
            f"{file.place}: must be a list of objects (or an object whose `data` is one), this is "
            f"{json_kind(value)}. One object a line is JSON Lines: call the file .jsonl."
        )
    return inner


def _questions(entry: Row) -> Iterator[Row]:
    """SQuAD's article as one row for each question; any other entry as it is."""
    if not isinstance(entry.get("paragraphs"), list):
        yield entry
        return
    for paragraph in entry["paragraphs"]:
        for question in paragraph.get("qas", ()):
            yield {"context": paragraph.get("context"), **question}
