"""JSON Lines: one object a line."""

import json
from collections.abc import Iterator

from peftune.data.readers.lines import line_at, line_extent, line_pieces, line_rows, read_lines
from peftune.data.readers.reader import Extent, File
from peftune.data.table import Piece, PlacedRow, Row, json_kind
from peftune.errors import DataError


def rows(file: File) -> Iterator[PlacedRow]:
    """One row for each line that is not blank. Raises DataError for a line that is no object."""
    return line_rows(file, parsed)


def pieces(file: File, size: int) -> Iterator[Piece]:
    return line_pieces(file, size, parsed)


def read(file: File, piece: Piece) -> Iterator[PlacedRow]:
    return read_lines(file, piece, parsed)


def extent(file: File) -> Extent:
    return line_extent(file)


def at(name: str, position: int) -> str:
    return line_at(name, position)


def parsed(text: str, place: str) -> Row:
    """The object that a line holds; `place` begins the message where it holds none."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.pos + 1})"
        raise DataError(f"{place}: malformed JSON: {reason}. Each line is one object.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: JSON that cannot be read: {str(error).rstrip('.')}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: a line must be a JSON object, this one is {json_kind(value)}.")
    return value
