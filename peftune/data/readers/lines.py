"""What files of one row a line have in common: they can be cut and counted without parsing."""

from collections.abc import Callable, Iterator
from itertools import islice

from peftune.data.readers.reader import Extent, File, readable
from peftune.data.table import Piece, PlacedRow, Row, listed
from peftune.errors import DataError

Parse = Callable[[str], Row]
"""From a line's text without its end to a row; raises LineProblem."""
Reads = Callable[[File, Piece], Iterator[PlacedRow]]
BLANK = " \t\r\n"
BOM = b"\xef\xbb\xbf"


class LineProblem(ValueError):
    """Why a line is no row, without its place."""


def line_rows(file: File, parse: Parse) -> Iterator[PlacedRow]:
    """Every line that is not blank, with its number from 0."""
    with file.open() as lines:
        yield from _parsed(lines, 0, file, parse)


def line_pieces(file: File, size: int, parse: Parse, reads: Reads) -> Iterator[Piece]:
    """Byte ranges of `size` rows for `reads`, or lists of rows for a compressed file."""
    if file.compression is not None:
        yield from listed(line_rows(file, parse), size)
        return
    offset, first, end, count, last = 0, 0, 0, 0, -1
    with file.open() as lines:
        for position, line in enumerate(lines):
            end += len(line)
            if _is_blank(line):
                continue
            count, last = count + 1, position
            if count == size:
                yield Piece(first, last + 1, count, offset=offset, reads=reads, origin=file)
                offset, first, count = end, position + 1, 0
    if count:
        yield Piece(first, last + 1, count, offset=offset, reads=reads, origin=file)


def read_lines(file: File, piece: Piece, parse: Parse) -> Iterator[PlacedRow]:
    """The rows of a byte range."""
    with readable(file), file.open() as lines:
        lines.seek(piece.offset)
        rows = _parsed(lines, piece.first, file, parse)
        yield from islice(rows, piece.skip, piece.skip + piece.count)


def line_extent(file: File) -> Extent:
    """Counts the lines that are not blank."""
    rows, last = 0, -1
    with file.open() as lines:
        for position, line in enumerate(lines):
            if not _is_blank(line):
                rows, last = rows + 1, position
    return Extent(rows, last + 1)


def line_at(name: str, position: int) -> str:
    """A row's place: file and line."""
    return f"{name}:{position + 1}"


def _parsed(lines: Iterator[bytes], first: int, file: File, parse: Parse) -> Iterator[PlacedRow]:
    for position, line in enumerate(lines, first):
        try:
            text = line.removeprefix(BOM).decode()
            if text.strip(BLANK):
                yield position, parse(text.rstrip("\r\n"))
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 text (byte {error.start}); save it as UTF-8"
            raise DataError(f"{_place(file, position)}: {problem}.") from error
        except LineProblem as error:
            raise DataError(f"{_place(file, position)}: {error}.") from error


def _place(file: File, position: int) -> str:
    return f"{file.key}: {line_at(file.name, position)}"


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(BOM).strip(BLANK.encode())
