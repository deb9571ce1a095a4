"""What a hostile input must not touch: a folder beside the one it is in, which is watched."""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GROWTH = 2**19
"""KiB that memory may grow while something is refused: half of a GiB, beside libraries."""
opened: list[tuple[str, int]] | None = None
"""Paths and flags while somebody listens."""


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if opened is not None and event == "open" and isinstance(arguments[0], str):
        opened.append((arguments[0], arguments[2]))


sys.addaudithook(note)


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def state(folder: Path) -> dict[str, tuple[float, bytes]]:
    """When each file of a folder was last read, and what is in it; reading it here changes nothing."""
    found = {}
    for path in sorted(folder.iterdir()):
        read_at = path.stat().st_atime
        found[path.name] = (read_at, path.read_bytes())
        os.utime(path, (1, 2))
    return found


@contextmanager
def untouched(outside: Path, home: Path, growth: int = GROWTH) -> Iterator[None]:
    """Inside, nothing of `outside` is read, nothing is written but under `home`, and memory stays."""
    state(outside)
    before, memory = state(outside), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    global opened
    opened = []
    yield
    events, opened = [(os.path.realpath(path), flags) for path, flags in opened], None
    assert state(outside) == before
    assert not [path for path, _ in events if path.startswith(f"{outside}{os.sep}")]
    written = [path for path, flags in events if flags & (os.O_WRONLY | os.O_RDWR)]
    allowed = (str(home), os.environ["PEFTUNE_CACHE"], "/dev/null")
    elsewhere = [path for path in written if not path.startswith(allowed)]
    assert not elsewhere, elsewhere
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < growth


def change_json(path: Path, **keys: Any) -> None:
    read = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(read | keys), encoding="utf-8")


def with_header(path: Path, header: bytes, data: bytes = b"") -> None:
    """A file with this header, whatever it is."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def change_header(path: Path, change: Callable[[dict[str, Any], list[str]], object]) -> None:
    """The same data under a changed header; `change` also gets the tensors' names in their order."""
    text = path.read_bytes()
    length = int.from_bytes(text[:8], "little")
    header = json.loads(text[8 : 8 + length])
    names = sorted(header.keys() - {"__metadata__"}, key=lambda n: header[n]["data_offsets"])
    change(header, names)
    with_header(path, json.dumps(header).encode(), text[8 + length :])
