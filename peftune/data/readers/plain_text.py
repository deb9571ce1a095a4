"""Plain text: one row a line."""

from collections.abc import Iterator

from peftune.data.readers.lines import line_at, line_extent, line_pieces, line_rows, read_lines
from peftune.data.readers.reader import Extent, File
from peftune.data.table import Piece, PlacedRow, Row


def rows(file: File) -> Iterator[PlacedRow]:
    """Each line that is not blank as the column `text`, as the `datasets` library cuts text too.

    Text whose paragraphs or documents belong together is better kept in JSON Lines.
    """
    return line_rows(file, _row)


def pieces(file: File, size: int) -> Iterator[Piece]:
    return line_pieces(file, size, _row, read)


def read(file: File, piece: Piece) -> Iterator[PlacedRow]:
    return read_lines(file, piece, _row)


def extent(file: File) -> Extent:
    return line_extent(file)


def at(name: str, position: int) -> str:
    return line_at(name, position)


def _row(text: str) -> Row:
    return {"text": text}
