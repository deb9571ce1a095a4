"""Runs in processes of their own, forked from one that has imported everything.

Starting takes milliseconds, and nothing stands between a test and the process: what it is sent, and
what it ends with.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.launching import free_port

PRELOADED = [
    "deepspeed",
    "rouge_score.rouge_scorer",
    "transformers.models.llama.modeling_llama",
    "peftune.engines.ddp",
    "peftune.pipeline",
    "tests.checkpoint.processes",
]
LONGEST_S = 120


@cache
def preloaded() -> Any:
    """The process that all others are forked from, when it is ready."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    context: Any = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def live(
    recipe: str, overrides: Sequence[str], log: str, names: dict[str, str], halts_at: str
) -> None:
    """One rank, in a process of its own."""
    import torch

    from peftune import pipeline
    from peftune.cli import report_errors, train_recipe

    torch.set_num_threads(1)
    if halts_at:
        setattr(pipeline, halts_at, lambda *_: signal.pause())
    os.environ.update(names)
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(report_errors(False, train_recipe, recipe, list(overrides)))


@dataclass
class Started:
    """The ranks of a run."""

    run: Path
    ranks: list[BaseProcess]
    before: int
    """Characters that earlier starts have printed."""

    def ended(self) -> list[int | None]:
        """The exit codes, when all have ended; a signal's number is negative."""
        for rank in self.ranks:
            rank.join(LONGEST_S)
        return [rank.exitcode for rank in self.ranks]

    @property
    def said(self) -> str:
        """All that was printed, by every rank and every start of this run."""
        log = log_of(self.run)
        return log.read_text(encoding="utf-8") if log.is_file() else ""

    @property
    def says(self) -> str:
        """What has been printed since this start."""
        return self.said[self.before :]

    def wait_for(self, name: str) -> None:
        """Until a file of the run is there, which must not end before."""
        while not (self.run / name).exists():
            self.ranks[0].join(0.005)
            assert self.ranks[0].exitcode is None, self.said[-3000:]

    def pid(self, rank: int) -> int:
        found = self.ranks[rank].pid
        assert found is not None
        return found


def log_of(run: Path) -> Path:
    return Path(f"{run}.log")


def start(
    recipe: Path,
    run: Path,
    overrides: Sequence[str] = (),
    world_size: int = 1,
    variables: Mapping[str, str] = MappingProxyType({}),
    halts_at: str = "",
) -> Started:
    """Start a run on CPU ranks, with a cache of its own and what a launcher says in `variables`.

    Instead of calling the function `halts_at` of the pipeline it waits for a signal.
    """
    started = Started(run, [], 0)
    started.before, port, ranks = len(started.said), str(free_port()), started.ranks
    names = {"CUDA_VISIBLE_DEVICES": "-1", "PEFTUNE_CACHE": f"{run}.cache", **variables}
    for rank in range(world_size):
        if world_size > 1:
            names |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
            names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        log, named = str(log_of(run)), (f"output_dir={run}", *overrides)
        arguments = (str(recipe), named, log, dict(names), halts_at)
        ranks.append(preloaded().Process(target=live, args=arguments, daemon=True))
        ranks[-1].start()
    return started
