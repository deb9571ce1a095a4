"""Runs that are killed at random moments and started again until they are done."""

import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.checkpoint.processes import LONGEST_S, Started, preloaded, start

SAME = ("adapter_model.safetensors", "metrics.jsonl", "eval_results.json", "predictions.jsonl")
"""Files that must not differ in a bit from those of the undisturbed run."""
LONELY_S = 10
STAGES = ("preparation", "training", "saving", "evaluation")


@dataclass
class Game:
    """One recipe, killed again and again."""

    recipe: Path
    folder: Path
    steps: int
    random: Random
    world_size: int = 1
    kills: Counter[str] = field(default_factory=Counter)
    """How often it was killed, by what it was doing."""

    def start(self, run: Path) -> Started:
        """The next attempt."""
        return start(self.recipe, run, ["resume=auto"], self.world_size)

    def undisturbed(self) -> tuple[Path, float]:
        """The run that nobody kills, and how many seconds it takes."""
        preloaded()
        run, began = self.folder / "undisturbed", time.monotonic()
        self.require_done(self.start(run))
        return run, time.monotonic() - began

    def require_done(self, started: Started) -> None:
        assert started.ended() == [0] * self.world_size, started.said[-3000:]

    def play(self, kills: int) -> None:
        """Kill so many times, in as many runs as it takes, each of which must end as if undisturbed."""
        undisturbed, seconds = self.undisturbed()
        print(f"undisturbed: {seconds:.1f} s on {self.world_size} rank(s)", flush=True)
        while self.kills.total() < kills:
            run = self.folder / f"after-{self.kills.total()}-kills"
            self.disturbed(run, seconds, kills - self.kills.total())
            assert differing(undisturbed, run) == []
            print(f"{self.kills.total()} kills, every run the same: {dict(self.kills)}", flush=True)
            remove(run)

    def disturbed(self, run: Path, seconds: float, most: int) -> None:
        """A run that is killed up to `most` times and then left alone."""
        for attempt in range(most + 1):
            started = self.start(run)
            if attempt < most:
                self.wait(started, seconds)
            if attempt < most and started.ranks[0].exitcode is None:
                self.kill(started)
                continue
            self.require_done(started)
            return

    def wait(self, started: Started, seconds: float) -> None:
        """Until some moment of some stage, or until the run has ended."""
        stage, rank = self.random.choice(STAGES), started.ranks[0]
        while rank.exitcode is None and self.stage_of(started) != stage:
            rank.join(0.002)
        # Saving takes milliseconds, and everything else a part of all the seconds.
        rank.join(self.random.uniform(0, 0.01 if stage == "saving" else seconds / len(STAGES)))

    def kill(self, started: Started) -> None:
        """SIGKILL to one rank, whichever; the others must end by themselves.

        Before the ranks have met nothing connects them, and a launcher is what ends the others.
        """
        stage = self.stage_of(started)
        self.kills[stage] += 1
        self.random.choice(started.ranks).kill()
        for rank in started.ranks:
            rank.join(LONELY_S if stage == "preparation" else LONGEST_S)
            if stage == "preparation":
                rank.kill()
                rank.join()
            assert rank.exitcode is not None, started.says[-3000:]

    def stage_of(self, started: Started) -> str:
        """What a run is doing, as it says itself."""
        says = started.says
        if "base_unchanged" not in says:
            return "preparation"
        if any(started.run.glob("checkpoint-*.partial")):
            return "saving"
        reached = re.findall(r"(?:step |checkpoint-)(\d+)", says)
        return "evaluation" if str(self.steps) in reached else "training"


def differing(run: Path, other: Path) -> list[str]:
    """The files among `SAME` that are not the same."""
    return [name for name in SAME if (run / name).read_bytes() != (other / name).read_bytes()]


def remove(run: Path) -> None:
    """All that a run has left."""
    for path in run.parent.glob(f"{run.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
