"""Arrow IPC: typed columns in record batches, as a file or as the stream that `datasets` writes."""

from collections.abc import Iterator
from typing import Any

from peftune.data.features import Naming, naming
from peftune.data.readers.reader import Extent, File, numbered, readable
from peftune.data.table import Piece, PlacedRow
from peftune.errors import DataError

FILE_MAGIC = b"ARROW1"
ROWS_AT_ONCE = 1024


def rows(file: File) -> Iterator[PlacedRow]:
    """All rows, with the types of their columns. Raises DataError."""
    first = 0
    for batch, named in _batches(file, 0):
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield from numbered_rows(batch.slice(start, ROWS_AT_ONCE), first + start, named)
        first += batch.num_rows


def pieces(file: File, size: int) -> Iterator[Piece]:
    """Parts of record batches; a batch is not copied to be cut."""
    first = 0
    for index, (batch, _) in enumerate(_batches(file, 0)):
        for skip in range(0, batch.num_rows, size):
            count = min(size, batch.num_rows - skip)
            yield Piece(first, first + skip + count, count, skip, index, read, file)
        first += batch.num_rows


def read(file: File, piece: Piece) -> Iterator[PlacedRow]:
    with readable(file):
        batch, named = next(_batches(file, piece.offset))
        part = batch.slice(piece.skip, piece.count)
        yield from numbered_rows(part, piece.first + piece.skip, named)


def extent(file: File) -> Extent:
    count = sum(batch.num_rows for batch, _ in _batches(file, 0))
    return Extent(count, count)


def at(name: str, position: int) -> str:
    return numbered(name, position)


def numbered_rows(batch: Any, first: int, named: Naming) -> Iterator[PlacedRow]:
    """The rows of a record batch, labels by their names; the first row has the position `first`."""
    for position, row in enumerate(batch.to_pylist(), first):
        yield position, named(row)


def require_distinct(names: list[str], file: File) -> None:
    """Raise DataError for two columns of one name, of which a row could keep only one."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file.place}: two columns are named {twice[0]!r}.")


def _batches(file: File, start: int) -> Iterator[tuple[Any, Naming]]:
    """The record batches from number `start` on."""
    import pyarrow

    try:
        with _source(file) as source:
            magic = source.read(len(FILE_MAGIC))
            source.seek(0)
            opening = pyarrow.ipc.open_file if magic == FILE_MAGIC else pyarrow.ipc.open_stream
            reader = opening(source)
            require_distinct(reader.schema.names, file)
            named = naming(reader.schema.metadata)
            for batch in _from(reader, start, magic == FILE_MAGIC):
                yield batch, named
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{file.place}: not a readable Arrow file: {reason}.") from error


def _from(reader: Any, start: int, indexed: bool) -> Iterator[Any]:
    if indexed:
        yield from (reader.get_batch(i) for i in range(start, reader.num_record_batches))
        return
    for index, batch in enumerate(reader):
        if index >= start:
            yield batch


def _source(file: File) -> Any:
    """A local file is mapped into memory, so that skipping batches costs nothing."""
    import pyarrow

    return pyarrow.PythonFile(file.open()) if file.remote else pyarrow.memory_map(file.path)
