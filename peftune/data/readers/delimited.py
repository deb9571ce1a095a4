"""CSV and TSV: a header of column names, then one row a record."""

import csv
import io
from collections.abc import Iterator

from peftune.data.readers.reader import Extent, File, counted, not_utf8, numbered
from peftune.data.table import Piece, PlacedRow, listed
from peftune.errors import DataError

# csv refuses longer fields unless told otherwise; documents are often longer than its 131,072.
LONGEST_FIELD = 2**31 - 1
DELIMITERS = {".csv": (",", "comma"), ".tsv": ("\t", "tab")}


def rows(file: File) -> Iterator[PlacedRow]:
    """Every value is text: guessing would turn an answer `007` into a number and `NA` into nothing.

    Double quotes mean the same in both kinds of file. Raises DataError.
    """
    delimiter, word = DELIMITERS[file.kind]
    csv.field_size_limit(LONGEST_FIELD)
    with file.open() as opened:
        text = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            _check_header(header, file)
            for position, cells in enumerate(cells for cells in reader if cells):
                if len(cells) != len(header):
                    raise DataError(
                        f"{file.place}:{reader.line_num}: {len(cells)} values under {len(header)} "
                        f"column names. A value that contains a {word} needs double quotes."
                    )
                yield position, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            reason, kind = str(error).replace("\t", "\\t"), file.kind[1:].upper()
            raise DataError(
                f"{file.place}:{reader.line_num}: malformed {kind}: {reason}."
            ) from error
        except UnicodeDecodeError as error:
            raise not_utf8(file.place, _wrong_byte(file)) from error


def pieces(file: File, size: int) -> Iterator[Piece]:
    return listed(rows(file), size)


def extent(file: File) -> Extent:
    return counted(rows(file))


def at(name: str, position: int) -> str:
    return numbered(name, position)


def _check_header(header: list[str], file: File) -> None:
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise DataError(f"{file.place}: two columns are named {twice[0]!r}.")


def _wrong_byte(file: File) -> int:
    """Where the first byte stands that is not UTF-8."""
    before = 0
    with file.open() as lines:
        for line in lines:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return before + error.start
            before += len(line)
    raise AssertionError("the file has changed while it was read")
