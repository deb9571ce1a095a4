"""Encoded rows on disk: Arrow files that are mapped into memory, one small set for each chunk.

A shard is three files: what the model reads, the ledger of its examples, and the rows of the source
that are no examples. The last of them is written last, so that a shard that has it is whole. Every file
is written aside and renamed.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peftune.data.ledger import column_of, values_of
from peftune.data.rows import IGNORED, EncodedRow
from peftune.objectives import ObjectiveName
from peftune.records import storing

MASKED: tuple[ObjectiveName, ...] = ("causal", "masked", "corrupted")
"""Objectives whose labels are the row's own tokens, so that a bit for each says enough."""
SCORES: tuple[ObjectiveName, ...] = ("labels", "value")


def row_schema(objective: ObjectiveName) -> pa.Schema:
    """The columns of encoded rows: tokens, a mask or labels, the prompt, the row in the source."""
    score = pa.float64() if objective in SCORES else pa.int32()
    target = ("mask", pa.list_(pa.bool_())) if objective in MASKED else ("labels", pa.list_(score))
    columns = [("input_ids", pa.list_(pa.int32())), target, ("prompt_ids", pa.list_(pa.int32()))]
    types = ("token_type_ids", pa.list_(pa.int8()))
    return pa.schema([*columns, types, ("row", pa.int64())])


def row_batch(rows: Sequence[EncodedRow], objective: ObjectiveName) -> pa.RecordBatch:
    """Encoded rows as Arrow columns."""
    schema = row_schema(objective)
    columns = {
        "input_ids": _lists([row.input_ids for row in rows], np.int32),
        "prompt_ids": _lists([row.prompt_ids for row in rows], np.int32),
        "token_type_ids": _lists([row.token_type_ids for row in rows], np.int8),
        "row": pa.array([row.row for row in rows], pa.int64()),
    }
    score = np.float64 if objective in SCORES else np.int32
    labels = _lists([row.labels for row in rows], score)
    columns["labels"] = labels
    if objective in MASKED:
        mask = column_of(values_of(labels.values) != IGNORED)
        columns["mask"] = pa.ListArray.from_arrays(labels.offsets, mask)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _lists(lists: Sequence[Sequence[float]], kind: type[np.generic]) -> pa.ListArray:
    """Lists of numbers, much faster than Arrow makes them of Python's."""
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    values = np.fromiter(chain.from_iterable(lists), kind, count=int(offsets[-1]))
    return pa.ListArray.from_arrays(column_of(offsets), column_of(values))


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """An Arrow IPC file, written aside and renamed. Raises StorageError."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    # One batch for a file: a million rows in small ones take seconds to open.
    whole = pa.Table.from_batches(batches, schema=schema).combine_chunks()
    with storing(path, whole.nbytes):
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(whole)
        os.replace(aside, path)


@dataclass(frozen=True)
class Shard:
    """The files of one chunk of a split."""

    folder: Path
    index: int

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.index:06d}.{name}"

    @property
    def rows(self) -> Path:
        return self._file("rows.arrow")

    @property
    def ledger(self) -> Path:
        return self._file("ledger.arrow")

    @property
    def problems(self) -> Path:
        return self._file("problems.json")

    def is_whole(self) -> bool:
        return self.problems.is_file()


def mapped(path: Path) -> list[pa.RecordBatch]:
    """The batches of an Arrow file without reading it."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(index) for index in range(reader.num_record_batches)]


class StoredRows(Sequence[EncodedRow]):
    """Rows of a split in shards on disk, in the order of the source, or a choice of them."""

    def __init__(self, batches: Sequence[pa.RecordBatch], picked: np.ndarray | None = None) -> None:
        self._batches = [batch for batch in batches if batch.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._picked = picked

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._picked is None else len(self._picked)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self) if self._picked is None else int(self._picked[index])
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return _row(self._batches[number], position - int(self._starts[number]))

    def sources(self) -> np.ndarray:
        """The place in the source of each row, int64 (rows,)."""
        columns = [values_of(batch.column("row")) for batch in self._batches]
        whole = np.concatenate(columns) if columns else np.zeros(0, np.int64)
        return whole if self._picked is None else whole[self._picked]

    def lengths(self) -> np.ndarray:
        """Tokens and labels of each row, int64 (rows, 2)."""
        whole = [_lengths(batch) for batch in self._batches] or [np.zeros((0, 2), np.int64)]
        lengths = np.concatenate(whole)
        return lengths if self._picked is None else lengths[self._picked]

    def select(self, keep: np.ndarray) -> "StoredRows":
        """The rows at which `keep`, bool (rows,), is true, in the same order."""
        picked = np.arange(len(self)) if self._picked is None else self._picked
        return StoredRows(self._batches, picked[keep])


def _lengths(batch: pa.RecordBatch) -> np.ndarray:
    columns = ("input_ids", "mask" if "mask" in batch.schema.names else "labels")
    offsets = [values_of(batch.column(name).offsets) for name in columns]
    return np.stack([np.diff(one).astype(np.int64) for one in offsets], axis=1)


def _row(batch: pa.RecordBatch, index: int) -> EncodedRow:
    ids = tuple(batch.column("input_ids")[index].as_py())
    if "mask" in batch.schema.names:
        mask = batch.column("mask")[index].as_py()
        labels = tuple(i if learnt else IGNORED for i, learnt in zip(ids, mask, strict=True))
    else:
        labels = tuple(batch.column("labels")[index].as_py())
    return EncodedRow(
        input_ids=ids,
        labels=labels,
        prompt_ids=tuple(batch.column("prompt_ids")[index].as_py()),
        row=batch.column("row")[index].as_py(),
        token_type_ids=tuple(batch.column("token_type_ids")[index].as_py()),
    )
