"""Planned beside measured: what a run leaves behind, and what a plan makes of it."""

import itertools
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from peftune.engines.ranks import Ranks
from peftune.errors import LaunchError
from peftune.forecast.forecast import Forecast
from peftune.records import read_json, read_jsonl, write_json

MEASURED, PLANNED = "memory.json", "forecast.json"
FIRST = 3
"""Steps whose time says more about a start than about a training."""


@dataclass(frozen=True)
class Error:
    """A run with what was planned and what it took."""

    run: str
    engine: str
    world_size: int
    planned_bytes: float
    measured_bytes: float
    planned_seconds: float
    measured_seconds: float

    @property
    def memory_error(self) -> float:
        return self.planned_bytes / self.measured_bytes - 1

    @property
    def time_error(self) -> float:
        return self.planned_seconds / self.measured_seconds - 1


class MemoryWatch:
    """The most memory of this rank since it was made: of tensors on a GPU, of the process on a CPU
    above what it took before."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        if ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(ranks.device)
        self.before = 0 if ranks.device.type == "cuda" else _resident()
        self.phases: dict[str, int] = {}
        self.phase: str | None = None

    def at(self, phase: str) -> None:
        """Say what this rank does now; what it did before is over."""
        device = self.ranks.device
        if self.phase is not None:
            on_gpu = device.type == "cuda"
            peak = torch.cuda.max_memory_allocated(device) if on_gpu else _resident() - self.before
            self.phases[self.phase] = peak
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.phase = phase
        self.ranks.at(phase)

    def write(self, folder: Path, engine: str) -> None:
        """`memory.json` with the phases of every rank; a collective."""
        ranks = self.ranks.gather_objects([self.phases])
        if self.ranks.is_main:
            kind = self.ranks.device.type
            write_json(folder / MEASURED, {"engine": engine, "device": kind, "ranks": ranks})


def _resident() -> int:
    """The most memory that this process has had in its life, which never falls."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def close_loop(made: Forecast, folder: Path) -> None:
    """Put what was planned beside what the run in `folder` measured, if it is of the same layout."""
    found = read_json(folder / MEASURED)
    timings = read_jsonl(folder / "timings.jsonl") if (folder / "timings.jsonl").is_file() else []
    ranks = found.get("ranks", ())
    same = (found.get("engine"), len(ranks)) == (made.launch.engine, made.launch.world_size)
    if not same or found["device"] != made.device.kind or len(timings) <= FIRST:
        return
    ends = [timing["wall_s"] for timing in timings[FIRST - 1 :]]
    seconds = [later - earlier for earlier, later in itertools.pairwise(ends)]
    error = Error(
        folder.name,
        made.launch.engine,
        made.launch.world_size,
        made.training_bytes,
        max(rank["training"] for rank in ranks),
        made.step_seconds,
        statistics.median(seconds),
    )
    write_json(folder / PLANNED, asdict(error))


def errors_beside(folder: Path) -> Iterator[Error]:
    """Those of the runs in the folder that `folder` is in, itself among them.

    Files of that name in folders that are no runs are somebody else's. Raises LaunchError for one in a
    run that no plan has written.
    """
    reading = TypeAdapter(Error)
    for file in sorted(folder.parent.glob(f"*/{PLANNED}")):
        if (file.parent / MEASURED).is_file():
            try:
                yield reading.validate_json(file.read_bytes())
            except ValidationError as error:
                raise LaunchError(f"{file}: not what a plan writes there; delete it.") from error
