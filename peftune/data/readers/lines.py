"""What files of one row a line have in common: they can be cut and counted without parsing."""

from collections.abc import Callable, Iterator
from itertools import islice

from peftune.data.readers.reader import Extent, File
from peftune.data.table import Piece, PlacedRow, Row, listed
from peftune.errors import DataError

Parse = Callable[[str, str], Row]
"""A line's text without its end and the beginning of a message about it, to a row."""
BLANK = b" \t\r\n"
BOM = b"\xef\xbb\xbf"


def line_rows(file: File, parse: Parse) -> Iterator[PlacedRow]:
    """Every line that is not blank, with its number from 0."""
    with file.open() as lines:
        yield from _parsed(lines, 0, file, parse)


def line_pieces(file: File, size: int, parse: Parse) -> Iterator[Piece]:
    """Byte ranges of `size` rows, or lists of rows for a compressed file."""
    if file.compression is not None:
        yield from listed(line_rows(file, parse), size)
        return
    offset, first, count, end = 0, 0, 0, 0
    position = -1
    with file.open() as lines:
        for position, line in enumerate(lines):
            end += len(line)
            count += not _is_blank(line)
            if count == size:
                yield Piece(0, 0, offset, first, position + 1, count)
                offset, first, count = end, position + 1, 0
    if count:
        yield Piece(0, 0, offset, first, position + 1, count)


def read_lines(file: File, piece: Piece, parse: Parse) -> Iterator[PlacedRow]:
    """The rows of a byte range."""
    with file.open() as lines:
        lines.seek(piece.offset)
        rows = _parsed(lines, piece.first, file, parse)
        yield from islice(rows, piece.skip, piece.skip + piece.count)


def line_extent(file: File) -> Extent:
    """Counts the lines and those that are not blank."""
    rows, positions = 0, 0
    with file.open() as lines:
        for line in lines:
            positions += 1
            rows += not _is_blank(line)
    return Extent(rows, positions)


def line_at(name: str, position: int) -> str:
    """A row's place: file and line."""
    return f"{name}:{position + 1}"


def _parsed(lines: Iterator[bytes], first: int, file: File, parse: Parse) -> Iterator[PlacedRow]:
    for position, line in enumerate(lines, first):
        if not _is_blank(line):
            place = f"{file.key}: {line_at(file.name, position)}"
            yield position, parse(_decoded(line, place), place)


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(BOM).strip(BLANK)


def _decoded(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
