"""One line for each example of a split: where it stood, what became of it, how large it is."""

from collections.abc import Mapping, Sequence
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
    lines = [_line(*pair) for pair in zip(examples, outcomes, strict=True)]
    return pa.RecordBatch.from_pylist(lines, schema=LEDGER)


def _line(example: Example, outcome: Outcome) -> dict[str, Any]:
    return {
        "row": example.row,
        "rows": len(outcome.rows),
        "tokens": outcome.tokens,
        "targets": outcome.targets,
        "kept": outcome.kept,
        "learnt": sum(len(row.labels) - row.labels.count(IGNORED) for row in outcome.rows),
        "unknown": outcome.unknown,
        "changed": outcome.changed,
        "fault": NO_FAULT if outcome.fault is None else FAULTS.index(outcome.fault),
        "reason": outcome.reason or None,
        "marked": outcome.marked,
        "end_id": NO_TOKEN if outcome.end_id is None else outcome.end_id,
        "source": text_hash(example.source),
        "normalized": text_hash(normalized(example.source)),
        "whole": text_hash(f"{example.source}\0{example.completion}"),
    }


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Ledger:
    """The lines of a split as columns, in the order of the source."""

    columns: Mapping[str, np.ndarray]
    """Each of shape (examples,); the names and types are those of LEDGER."""

    @classmethod
    def of(cls, batches: Sequence[pa.RecordBatch]) -> "Ledger":
        table = pa.Table.from_batches(batches, schema=LEDGER)
        return cls({name: table.column(name).to_numpy() for name in LEDGER.names})

    def __len__(self) -> int:
        return len(self.columns["row"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def select(self, keep: np.ndarray) -> "Ledger":
        """The lines at which `keep`, bool (examples,), is true."""
        return Ledger({name: column[keep] for name, column in self.columns.items()})

    def total(self, name: str) -> int:
        """The sum of a column."""
        return int(self.columns[name].sum(dtype=np.int64))

    def faulty(self, fault: Fault) -> np.ndarray:
        """Where the fault is, bool (examples,)."""
        return self.columns["fault"] == FAULTS.index(fault)

    def end_ids(self) -> set[int]:
        """Tokens that close an example."""
        return set(np.unique(self.columns["end_id"]).tolist()) - {NO_TOKEN}
