"""Parquet: typed columns in row groups."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from peftune.data.features import naming
from peftune.data.readers.arrow_batches import numbered_rows, require_distinct
from peftune.data.readers.reader import Extent, File, numbered, readable
from peftune.data.table import Piece, PlacedRow, listed
from peftune.errors import DataError

ROWS_AT_ONCE = 1024


def rows(file: File) -> Iterator[PlacedRow]:
    """All rows, with the types of their columns. Raises DataError."""
    return _batches(file, None, 0)


def pieces(file: File, size: int) -> Iterator[Piece]:
    """Row groups; lists of rows where a group is larger, as a group is only read from its start."""
    with _opened(file) as opened:
        groups = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
    first = 0
    for index, count in enumerate(groups):
        if count > size:
            yield from listed(_batches(file, index, first), size)
        elif count:
            stop = first + count
            yield Piece(first, stop, count, offset=index, reads=read, origin=file)
        first += count


def read(file: File, piece: Piece) -> Iterator[PlacedRow]:
    with readable(file):
        group = _batches(file, piece.offset, piece.first)
        yield from islice(group, piece.skip, piece.skip + piece.count)


def extent(file: File) -> Extent:
    with _opened(file) as opened:
        count = opened.metadata.num_rows
    return Extent(count, count)


def at(name: str, position: int) -> str:
    return numbered(name, position)


def _batches(file: File, group: int | None, first: int) -> Iterator[PlacedRow]:
    """The rows of one row group, or of all for None; the first has the position `first`."""
    import pyarrow

    with _opened(file) as opened:
        require_distinct(opened.schema_arrow.names, file)
        named = naming(opened.schema_arrow.metadata)
        groups = None if group is None else [group]
        try:
            for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=groups):
                yield from numbered_rows(batch, first, named)
                first += batch.num_rows
        except pyarrow.ArrowException as error:
            raise DataError(_unreadable(file, error)) from error


def _opened(file: File) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file.open() if file.remote else file.path, pre_buffer=False)
    except pyarrow.ArrowException as error:
        raise DataError(_unreadable(file, error)) from error


def _unreadable(file: File, error: Exception) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    return f"{file.place}: not a readable Parquet file: {reason}."
