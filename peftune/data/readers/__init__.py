"""Extension point: one file for each kind of file that rows are read from."""

from peftune.data.readers import (
    arrow_batches,
    delimited,
    json_lines,
    json_list,
    parquet_groups,
    plain_text,
)
from peftune.data.readers.reader import File, Reader

READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_list,
    ".csv": delimited,
    ".tsv": delimited,
    ".parquet": parquet_groups,
    ".arrow": arrow_batches,
    ".txt": plain_text,
}
COMPRESSIBLE = (".jsonl", ".json", ".csv", ".tsv", ".txt")
"""Kinds that may be compressed as a whole; the others are compressed inside."""

__all__ = ["COMPRESSIBLE", "READERS", "File", "Reader"]
