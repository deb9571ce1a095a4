"""What a reader of one kind of file is, and the file it reads."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from peftune.data.table import Piece, PlacedRow, digest
from peftune.errors import DataError
from peftune.fingerprints import file_sha256

COMPRESSIONS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Extent(NamedTuple):
    """How much a file holds."""

    rows: int
    positions: int
    """Position behind the last row; blank lines before it have positions too."""


@dataclass(frozen=True)
class File:
    """One file of rows."""

    key: str
    """The recipe key that named it."""
    name: str
    """The file as the recipe writes it."""
    path: str
    """Where it is: a path of this machine, or an address for fsspec."""
    remote: bool = False
    """Whether `path` is an address."""

    @property
    def place(self) -> str:
        """The beginning of a message about the file."""
        return f"{self.key}: {self.name}"

    @property
    def compression(self) -> str | None:
        """The ending that says how the file is compressed."""
        ending = Path(self.path).suffix
        return ending if ending in COMPRESSIONS else None

    @property
    def kind(self) -> str:
        """The ending that says what the file is, e.g. `.jsonl` for `a.jsonl.gz`."""
        return Path(self.path.removesuffix(self.compression or "")).suffix

    def open(self) -> IO[bytes]:
        """The uncompressed bytes, from the start."""
        raw = self._open_stored()
        return COMPRESSIONS[self.compression](raw, "rb") if self.compression else raw

    def _open_stored(self) -> IO[bytes]:
        if not self.remote:
            return Path(self.path).open("rb")
        import fsspec

        opened: IO[bytes] = fsspec.open(self.path, "rb").open()
        return opened

    def fingerprint(self) -> str:
        """SHA-256 of the bytes; of a remote file what its server says about its content."""
        if not self.remote:
            return file_sha256(Path(self.path))
        import fsspec

        system, path = fsspec.core.url_to_fs(self.path)
        return digest([self.path, system.ukey(path), system.size(path)])


class Reader(Protocol):
    """Reads one kind of file; each file of this folder but the shared ones is one."""

    def rows(self, file: File) -> Iterator[PlacedRow]:
        """All rows in order, without holding the file."""

    def pieces(self, file: File, size: int) -> Iterator[Piece]:
        """All rows, cut into pieces of at most `size` rows."""

    def extent(self, file: File) -> Extent:
        """Rows and positions, counted as cheaply as the kind of file allows."""

    def at(self, name: str, position: int) -> str:
        """The place of a row in the file called `name`, as people look it up."""


def numbered(name: str, position: int) -> str:
    """A row's place in a file that has no lines to count."""
    return f"row {position + 1} of {name}"


def counted(rows: Iterator[PlacedRow]) -> Extent:
    """The extent of rows that can only be counted by reading them."""
    count, positions = 0, 0
    for position, _ in rows:
        count, positions = count + 1, position + 1
    return Extent(count, positions)


@contextmanager
def readable(file: File) -> Iterator[None]:
    """Turns what an operating system, a server or a decompressor answers into one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{file.place}: cannot be read: {reason}.") from error


def not_utf8(place: str, byte: int) -> DataError:
    """What is said about a file that is no text; `byte` is the first wrong one."""
    return DataError(f"{place}: not UTF-8 text (byte {byte}); save it as UTF-8.")
