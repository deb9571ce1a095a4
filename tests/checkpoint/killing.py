"""Runs that are killed at random moments and started again until they are done.

All processes are forked from one that has imported everything, so that a life is mostly the run's own.
"""

import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from tests.launching import free_port

PRELOADED = [
    "deepspeed",
    "rouge_score.rouge_scorer",
    "transformers.models.llama.modeling_llama",
    "peftune.engines.ddp",
    "peftune.pipeline",
    "tests.checkpoint.killing",
]
SAME = ("adapter_model.safetensors", "metrics.jsonl", "eval_results.json", "predictions.jsonl")
"""Files that must not differ in a bit from those of the undisturbed run."""
STAGES = ("preparation", "training", "saving", "evaluation")
LONGEST_S = 120


def live(recipe: str, run: str, cache: str, rank: int, world_size: int, port: int) -> None:
    """One rank, in a process of its own."""
    import torch

    from peftune.cli import report_errors, train_recipe

    torch.set_num_threads(1)
    names: dict[str, Any] = {"CUDA_VISIBLE_DEVICES": "-1", "PEFTUNE_CACHE": cache}
    if world_size > 1:
        names |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    with open(f"{run}.log", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.exit(report_errors(False, train_recipe, recipe, [f"output_dir={run}", "resume=auto"]))


@dataclass
class Game:
    """One recipe, killed again and again."""

    recipe: Path
    folder: Path
    random: Random
    world_size: int = 1
    kills: Counter[str] = field(default_factory=Counter)
    """How often it was killed, by what it was doing."""

    def __post_init__(self) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        self.context: Any = get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        # The first process waits for all imports.
        first = self.context.Process(target=os.getpid)
        first.start()
        first.join()

    def start(self, run: Path) -> list[BaseProcess]:
        """The ranks of one attempt."""
        port, cache = free_port(), f"{run}.cache"
        arguments = [
            (str(self.recipe), str(run), cache, rank, self.world_size, port)
            for rank in range(self.world_size)
        ]
        ranks = [self.context.Process(target=live, args=one, daemon=True) for one in arguments]
        for rank in ranks:
            rank.start()
        return ranks

    def undisturbed(self) -> tuple[Path, float]:
        """The run that nobody kills, and how many seconds it takes."""
        run, started = self.folder / "undisturbed", time.monotonic()
        ranks = self.start(run)
        for rank in ranks:
            rank.join(LONGEST_S)
        assert [rank.exitcode for rank in ranks] == [0] * self.world_size, log_of(run)
        return run, time.monotonic() - started

    def play(self, kills: int) -> None:
        """Kill so many times, in as many runs as it takes, each of which must end as if undisturbed."""
        undisturbed, seconds = self.undisturbed()
        print(f"undisturbed: {seconds:.1f} s on {self.world_size} rank(s)", flush=True)
        while self.kills.total() < kills:
            run = self.folder / f"after-{self.kills.total()}-kills"
            self.disturbed(run, seconds, kills - self.kills.total())
            assert differing(undisturbed, run) == [], log_of(run)
            print(f"{self.kills.total()} kills, every run the same: {dict(self.kills)}", flush=True)
            remove(run)

    def disturbed(self, run: Path, seconds: float, most: int) -> None:
        """A run that is killed up to `most` times and then left alone."""
        for attempt in range(most + 1):
            ranks = self.start(run)
            if attempt < most:
                self.wait(run, ranks[0], seconds)
            if attempt < most and ranks[0].exitcode is None:
                self.kill(run, ranks)
                continue
            for rank in ranks:
                rank.join(LONGEST_S)
            assert [rank.exitcode for rank in ranks] == [0] * self.world_size, log_of(run)
            return

    def wait(self, run: Path, rank: BaseProcess, seconds: float) -> None:
        """Until some moment of some stage, or until the run has ended."""
        stage = self.random.choice(STAGES)
        while rank.exitcode is None and stage_of(run) != stage:
            rank.join(0.002)
        # Saving takes milliseconds, and everything else a part of all the seconds.
        rank.join(self.random.uniform(0, 0.01 if stage == "saving" else seconds / len(STAGES)))

    def kill(self, run: Path, ranks: list[BaseProcess]) -> None:
        """SIGKILL to one rank, whichever; the others must end by themselves."""
        self.kills[stage_of(run)] += 1
        victim = self.random.choice(ranks)
        victim.kill()
        for rank in ranks:
            rank.join(LONGEST_S)
            assert rank.exitcode is not None, log_of(run)


def stage_of(run: Path) -> str:
    """What a run is doing, as its folder tells."""
    if not (run / "base.json").exists():
        return "preparation"
    if any(run.glob("checkpoint-*.partial")):
        return "saving"
    return "evaluation" if (run / "train_results.json").exists() else "training"


def differing(run: Path, other: Path) -> list[str]:
    """The files among `SAME` that are not the same."""
    return [name for name in SAME if (run / name).read_bytes() != (other / name).read_bytes()]


def log_of(run: Path) -> str:
    """The end of what a run has said."""
    log = Path(f"{run}.log")
    return log.read_text(encoding="utf-8")[-3000:] if log.is_file() else "nothing was said"


def remove(run: Path) -> None:
    """All that a run has left."""
    for path in run.parent.glob(f"{run.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
