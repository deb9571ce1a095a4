"""What each rank does and when it was last heard of, in a file that any machine can read.

Rank 0 hears of all ranks over the lifeline and writes `ranks.json` into the run's folder.
"""

import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from traceback import walk_stack
from typing import Any

from peftune.errors import StorageError
from peftune.records import write_json

HEARTBEATS = "ranks.json"
BEAT_S = 1.0
WRITE_S = 5.0
"""A network drive need not see every heartbeat."""
FRAMES, INNERMOST = 100, 6
# Where a rank is that waits for others: inside a collective, or a backward pass that ends in one.
WAITING = ("torch/distributed/", "torch/autograd/graph.py", "deepspeed/comm/")


@dataclass
class Heartbeat:
    """The last that was heard of one rank."""

    rank: int
    host: str
    stage: str = "starting"
    moved: float = field(default_factory=time.monotonic)
    """When it last got on with its work, by this machine's monotonic clock."""
    heard: float = field(default_factory=time.monotonic)
    """When it last said anything, by the same clock."""
    stack: list[str] = field(default_factory=list)
    """Where its main thread was then, outermost call first, as `file:line function`."""

    @property
    def place(self) -> str:
        return self.stack[-1] if self.stack else "an unknown place"

    @property
    def waits(self) -> bool:
        """Whether it was waiting for other ranks."""
        return any(part in line for line in self.stack[-INNERMOST:] for part in WAITING)

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


def main_stack() -> list[str]:
    """Where the main thread of this process is now, outermost call first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = list(walk_stack(frame))[:FRAMES] if frame else []
    return [f"{short(f.f_code.co_filename)}:{line} {f.f_code.co_name}" for f, line in calls[::-1]]


def short(file: str) -> str:
    """A path without what is the same for all packages of an installation."""
    return file.rpartition("site-packages/")[2]


class Record:
    """The file of a run's heartbeats."""

    def __init__(self, folder: Path) -> None:
        self.file, self.lock = folder / HEARTBEATS, threading.Lock()
        self.written, self.ended = 0.0, False

    def write(self, beats: list[Heartbeat]) -> None:
        """Write it, unless that was done a moment ago or the run has ended."""
        with self.lock:
            if not self.ended and time.monotonic() - self.written >= WRITE_S:
                self._write(beats, {})

    def end(self, beats: list[Heartbeat], code: int, error: str) -> None:
        """Write it for the last time, with the exit code and the reason."""
        with self.lock:
            self.ended = True
            self._write(beats, {"code": code, "error": error})

    def _write(self, beats: list[Heartbeat], more: Mapping[str, Any]) -> None:
        now, clock = time.monotonic(), time.time()
        ranks = [
            {**asdict(beat), "moved": clock - now + beat.moved, "heard": clock - now + beat.heard}
            for beat in beats
        ]
        self.written = now
        # Whoever trains meets the same disk, and says so.
        with suppress(StorageError):
            write_json(self.file, {"time": clock, **more, "ranks": ranks})
