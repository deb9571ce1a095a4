"""Files of rows as one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from peftune.data.readers import COMPRESSIBLE, READERS, File, Reader
from peftune.data.readers.reader import COMPRESSIONS, Extent, readable
from peftune.data.table import Piece, PlacedRow, Table, digest
from peftune.errors import DataError


def read_files(files: Sequence[File], key: str, place: str) -> Table:
    """The rows of some files, one file after the other.

    Only the first row of each file is read here. Raises DataError for a kind of file that has no
    reader, for a file named twice, and for a file without rows.
    """
    for file in files:
        _require_kind(file)
    twice = [file.name for file in files if sum(file.path == other.path for other in files) > 1]
    if twice:
        raise DataError(f"{key}: the file {twice[0]} is named twice.")
    source = Files(tuple(files))
    for file in files:
        if next(Files((file,)).rows(), None) is None:
            raise DataError(f"{key}: {file.name} holds no rows.")
    return Table(key, place, source)


def _require_kind(file: File) -> None:
    if file.kind not in READERS:
        *most, last = READERS
        raise DataError(f"{file.key}: {file.name!r} is not a {', '.join(most)} or {last} file.")
    if file.compression and file.kind not in COMPRESSIBLE:
        raise DataError(
            f"{file.key}: {file.name!r}: {file.kind} files are compressed inside; unpack it."
        )


def is_row_file(path: Path) -> bool:
    """Whether the name says that there is a reader for the file."""
    name = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSIONS else path.name
    return Path(name).suffix in READERS


@dataclass(frozen=True)
class Files:
    """Some files as the source of a table; positions run on from file to file."""

    files: tuple[File, ...]

    def rows(self) -> Iterator[PlacedRow]:
        base = 0
        for file in self.files:
            last = -1
            with readable(file):
                for last, row in _reader(file).rows(file):
                    yield base + last, row
            base += last + 1

    def pieces(self, size: int) -> Iterator[Piece]:
        base = 0
        for file in self.files:
            stop = 0
            with readable(file):
                for piece in _reader(file).pieces(file, size):
                    yield replace(piece, base=base)
                    stop = piece.stop
            base += stop

    def count(self) -> int:
        return sum(extent.rows for extent in self._extents)

    def at(self, position: int) -> str:
        if len(self.files) > 1:
            for file, extent in zip(self.files[:-1], self._extents, strict=False):
                if position < extent.positions:
                    return _reader(file).at(file.name, position)
                position -= extent.positions
        return _reader(self.files[-1]).at(self.files[-1].name, position)

    def fingerprint(self) -> str:
        return digest([(file.kind, file.fingerprint()) for file in self.files])

    @cached_property
    def _extents(self) -> tuple[Extent, ...]:
        found = []
        for file in self.files:
            with readable(file):
                found.append(_reader(file).extent(file))
        return tuple(found)


def _reader(file: File) -> Reader:
    return READERS[file.kind]
