"""Rows of one local file: JSON Lines, CSV or Parquet."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from peftune.errors import DataError, did_you_mean

Row = Mapping[str, Any]
# csv refuses longer fields unless told otherwise; documents are often longer than its 131,072.
LONGEST_CSV_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Chunk:
    rows: tuple[tuple[int, Row], ...]

    def read(self) -> Iterator[tuple[int, Row]]:
        return iter(self.rows)


@dataclass(frozen=True)
class Table:
    """The rows of one split, in file order, each with its position (from 0) in the source."""

    key: str
    """The recipe key that named the source, e.g. `data.train`."""
    place: str
    """The source for messages: a file as the recipe writes it, or a Hub split."""
    rows: tuple[tuple[int, Row], ...]

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def limited(self, rows: int | None) -> "Table":
        return replace(self, rows=self.rows[:rows])

    def chunks(self, size: int) -> Iterator["Chunk"]:
        for start in range(0, len(self.rows), size):
            yield Chunk(self.rows[start : start + size])

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.rows, default=str).encode()).hexdigest()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column that some row has, in the order of appearance."""
        return tuple(dict.fromkeys(name for _, row in self.rows for name in row))

    def at(self, position: int) -> str:
        """A row's place as people look it up: a line of a JSONL file, else a row number from 1."""
        if self.place.endswith(".jsonl"):
            return f"{self.place}:{position + 1}"
        return f"row {position + 1} of {self.place}"


def read_table(path: Path, key: str) -> Table:
    """Read all rows of a .jsonl, .csv or .parquet file.

    Parquet keeps its column types. Every CSV value is text: guessing would turn an answer `007`
    into a number and an answer `NA` into nothing. Blank lines are skipped.
    Raises DataError for a file that is missing, of another kind, malformed or without rows.
    """
    path = path.expanduser()
    if path.suffix not in READERS:
        raise DataError(f"{key}: {str(path)!r} is not a {', '.join(READERS)} file.")
    if not path.is_file():
        raise DataError(
            f"{key}: no such file: {path}. {holdings(path.absolute().parent, path.name)}"
        )
    rows = tuple(READERS[path.suffix](path, key))
    if not rows:
        raise DataError(f"{key}: {path} holds no rows.")
    return Table(key, str(path), rows)


def holdings(folder: Path, wanted: str = "") -> str:
    """A sentence that says what a folder holds, and which of it was probably meant."""
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"The folder {folder} is empty."
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"The folder {folder} holds: {shown}.{did_you_mean(wanted, names)}"


def _read_jsonl(path: Path, key: str) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as lines:
        for position, line in enumerate(lines):
            place = f"{key}: {path}:{position + 1}"
            text = _decoded(line, place).strip(" \t\r\n")
            if text:
                yield position, _json_object(text, place)


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error


def _json_object(text: str, place: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.pos + 1})"
        raise DataError(f"{place}: malformed JSON: {reason}. Each line is one object.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: JSON that cannot be read: {str(error).rstrip('.')}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: a line must be a JSON object, this one is {json_kind(value)}.")
    return value


def json_kind(value: object) -> str:
    """What JSON calls a value of this type, with its article."""
    for types, name in (
        (str, "a text"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (list, "a list"),
        (dict, "an object"),
        (type(None), "null"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"


def _read_csv(path: Path, key: str) -> Iterator[tuple[int, Row]]:
    text = _decoded(path.read_bytes(), f"{key}: {path}")
    csv.field_size_limit(LONGEST_CSV_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, f"{key}: {path}")
        for position, cells in enumerate(cells for cells in reader if cells):
            if len(cells) != len(header):
                raise DataError(
                    f"{key}: {path}:{reader.line_num}: {len(cells)} values under {len(header)} "
                    "column names. A value that contains a comma needs double quotes."
                )
            yield position, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{key}: {path}:{reader.line_num}: malformed CSV: {error}.") from error


def _check_header(header: list[str], place: str) -> None:
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise DataError(f"{place}: two columns are named {twice[0]!r}.")


def _read_parquet(path: Path, key: str) -> Iterator[tuple[int, Row]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.ParquetFile(path).read().to_pylist()
    except pyarrow.ArrowInvalid as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{key}: {path}: not a readable Parquet file: {reason}.") from error
    yield from enumerate(rows)


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
