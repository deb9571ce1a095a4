"""Text, JSON and JSON lines, written so that a file is either the old one or the complete new one."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftune.errors import StorageError


@contextmanager
def storing(path: Path, size: int) -> Iterator[None]:
    """Inside, an error of the system becomes a StorageError that names what took how many bytes."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} was not written: {error.strerror}; it needs {size:,} bytes."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write aside, sync, rename. Raises StorageError."""
    aside = path.with_name(f"{path.name}.partial")
    data = text.encode("utf-8")
    with storing(path, len(data)):
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)


def append_line(path: Path, text: str) -> None:
    """Add a line to a log. Raises StorageError, and then leaves no part of the line."""
    data = (text + "\n").encode("utf-8")
    with storing(path, len(data)), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            _write_all(file, data)
        except OSError:
            os.truncate(path, before)
            raise


def _write_all(file: Any, data: bytes) -> None:
    """A full disk takes a part first and says no to the next."""
    while data:
        data = data[file.write(data) :]


def sync_file(path: Path) -> None:
    """Make its bytes durable; of a folder, what was renamed inside it. Raises StorageError."""
    with storing(path, 0):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """One JSON value, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """One JSON value a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; empty when there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
