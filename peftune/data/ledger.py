"""One line for each example of a split: where it stood, what became of it, how large it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from peftune.data.examples import Example
from peftune.data.overlap import normalized
from peftune.data.rows import IGNORED, Fault, Outcome

FAULTS: tuple[Fault, ...] = get_args(Fault)
NO_FAULT = -1
NO_TOKEN = -1
LEDGER = pa.schema(
    {
        "row": pa.int64(),  # position in the source of the split, from 0
        "rows": pa.int32(),  # encoded rows, none for an example that is left out
        "tokens": pa.int32(),  # of the longer side, before any policy
        "targets": pa.int32(),  # learnt tokens or labels before any policy
        "kept": pa.int32(),  # tokens of the encoded rows, on both sides
        "learnt": pa.int32(),  # learnt tokens or labels of the encoded rows
        "unknown": pa.int32(),  # tokens for characters that the tokenizer does not know
        "changed": pa.bool_(),  # whether `data.overlong` had to do something
        "fault": pa.int8(),  # index in FAULTS
        "reason": pa.string(),  # what exactly is wrong, where a fault has more than one cause
        "marked": pa.bool_(),  # whether generation blocks told where its answers are
        "end_id": pa.int32(),  # the token that closes it
        "source": pa.uint64(),  # hash of what the row is about
        "normalized": pa.uint64(),  # the same, blind to case, white space and punctuation
        "whole": pa.uint64(),  # hash of source and completion
    }
)


def ledger_batch(examples: Sequence[Example], outcomes: Sequence[Outcome]) -> pa.RecordBatch:
    """The lines of some examples."""
    columns: dict[str, list[Any]] = {
        "row": [example.row for example in examples],
        "rows": [len(one.rows) for one in outcomes],
        "learnt": [
            sum(len(row.labels) - row.labels.count(IGNORED) for row in one.rows) for one in outcomes
        ],
        "fault": [NO_FAULT if one.fault is None else FAULTS.index(one.fault) for one in outcomes],
        "reason": [one.reason or None for one in outcomes],
        "end_id": [NO_TOKEN if one.end_id is None else one.end_id for one in outcomes],
        "source": [text_hash(example.source) for example in examples],
        "normalized": [text_hash(normalized(example.source)) for example in examples],
        "whole": [text_hash(f"{one.source}\0{one.completion}") for one in examples],
    }
    for name in ("tokens", "targets", "kept", "unknown", "changed", "marked"):
        columns[name] = [vars(one)[name] for one in outcomes]
    arrays = [pa.array(columns[field.name], field.type) for field in LEDGER]
    return pa.record_batch(arrays, schema=LEDGER)


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def values_of(column: pa.Array) -> np.ndarray:
    """A column without gaps as NumPy sees it; Arrow's own way would import pandas."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    start, data = column.offset, column.buffers()[1]
    if pa.types.is_boolean(column.type):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[start : start + len(column)].astype(bool)
    kind = np.dtype(str(column.type))
    return np.frombuffer(data, kind, count=len(column), offset=start * kind.itemsize)


def column_of(values: np.ndarray) -> pa.Array:
    """The other way round, numbers or truth values."""
    kind = pa.from_numpy_dtype(values.dtype)
    data = np.packbits(values, bitorder="little") if pa.types.is_boolean(kind) else values
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


@dataclass(frozen=True)
class Ledger:
    """The lines of a split in the order of the source, or a choice of them, read when asked for."""

    batches: Sequence[pa.RecordBatch]
    """In the schema LEDGER, as a rule mapped from files."""
    picked: np.ndarray | None = None
    """Which lines, by their numbers, int64 (examples,); None for all."""

    def __len__(self) -> int:
        if self.picked is not None:
            return len(self.picked)
        return sum(batch.num_rows for batch in self.batches)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column of LEDGER, (examples,)."""
        parts = [values_of(batch.column(name)) for batch in self.batches]
        whole = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return whole if self.picked is None else whole[self.picked]

    def select(self, keep: np.ndarray) -> "Ledger":
        """The lines at which `keep` is true, bool (examples,), or whose numbers it holds."""
        picked = np.arange(len(self)) if self.picked is None else self.picked
        return Ledger(self.batches, picked[keep])

    def total(self, name: str) -> int:
        """The sum of a column."""
        return int(self[name].sum(dtype=np.int64))

    def faulty(self, fault: Fault) -> np.ndarray:
        """Where the fault is, bool (examples,)."""
        return self["fault"] == FAULTS.index(fault)

    def end_ids(self) -> set[int]:
        """Tokens that close an example."""
        return set(np.unique(self["end_id"]).tolist()) - {NO_TOKEN}
