"""JSON Lines: one object a line."""

import json
from collections.abc import Iterator

from peftune.data.readers.lines import (
    LineProblem,
    line_at,
    line_extent,
    line_pieces,
    line_rows,
    read_lines,
)
from peftune.data.readers.reader import Extent, File
from peftune.data.table import Piece, PlacedRow, Row, json_kind


def rows(file: File) -> Iterator[PlacedRow]:
    """One row for each line that is not blank. Raises DataError for a line that is no object."""
    return line_rows(file, _parsed)


def pieces(file: File, size: int) -> Iterator[Piece]:
    return line_pieces(file, size, _parsed, read)


def read(file: File, piece: Piece) -> Iterator[PlacedRow]:
    return read_lines(file, piece, _parsed)


def extent(file: File) -> Extent:
    return line_extent(file)


def at(name: str, position: int) -> str:
    return line_at(name, position)


def _parsed(text: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.pos + 1})"
        raise LineProblem(f"malformed JSON: {reason}. Each line is one object") from error
    except (ValueError, RecursionError) as error:
        raise LineProblem(f"JSON that cannot be read: {str(error).rstrip('.')}") from error
    if not isinstance(value, dict):
        raise LineProblem(f"a line must be a JSON object, this one is {json_kind(value)}")
    return value
