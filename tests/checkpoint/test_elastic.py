"""A run that changes its layout at each start is the run that never did."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.killing import differing
from tests.checkpoint.processes import start
from tests.conftest import write_recipe
from tests.launching import (
    adapter_difference,
    environment,
    free_port,
    largest_difference,
    launch_command,
)

ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "no"}
LAYOUTS: tuple[tuple[int, dict[str, str]], ...] = (
    (1, {}),
    (2, {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}),
    (2, {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}),
    (2, {}),
    (2, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}),
    (1, {}),
)
"""Ranks, and what a launcher would say."""


@pytest.mark.thorough
def test_each_step_in_another_layout(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    """The hours are over after each step; the last start has time for the rest."""
    recipe_tree["train"] |= {"max_steps": 8, "eval_steps": 2, "load_best_model_at_end": True}
    recipe_tree |= {
        "quantization": {"method": "bnb-nf4"},
        "export": {"merge": False, "verify": False},
    }
    recipe = write_recipe(tmp_path, recipe_tree)
    whole, run = tmp_path / "whole", tmp_path / "run"
    started = start(recipe, whole)
    assert started.ended() == [0], started.said[-3000:]
    for number, (world_size, names) in enumerate(LAYOUTS):
        last = number == len(LAYOUTS) - 1
        hours = [] if last else ["train.max_hours=1.0e-6"]
        started = start(recipe, run, ["resume=auto", *hours], world_size, names)
        assert started.ended() == [0 if last else 75] * world_size, started.said[-3000:]
    assert re.findall(r"resuming from .*checkpoint-(\d+)", started.said) == [
        "1",
        "2",
        "3",
        "4",
        "5",
    ]
    assert largest_difference(whole, run, "loss") < 1e-6
    assert largest_difference(whole, run, "eval_loss") < 1e-6
    assert adapter_difference(whole, run) < 1e-4


def test_the_launcher_brings_a_run_back_by_itself(
    recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    """A rank is killed; the recipe says nothing of resuming, and the command is given once."""
    recipe_tree["train"] |= {"max_steps": 120, "eval_steps": 40, "save_steps": 20}
    recipe = write_recipe(tmp_path, recipe_tree | {"export": {"merge": False, "verify": False}})
    run = tmp_path / "run"
    command = launch_command(
        "cpu_ddp", free_port(), "--max_restarts", "1", "--monitor_interval", "0.2"
    )
    launched = subprocess.Popen(
        [*command, str(recipe), f"output_dir={run}"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "checkpoint-20").exists():
        assert launched.poll() is None, launched.communicate()[1][-3000:]
    os.kill(rank_of(str(run), "1"), signal.SIGKILL)
    said = launched.communicate(timeout=300)[1]
    assert launched.returncode == 0, said[-3000:]
    assert "error: rank 1 on " in said and f"resuming from {run}/checkpoint-" in said
    whole = start(recipe, tmp_path / "whole", world_size=2)
    assert whole.ended() == [0, 0], whole.said[-3000:]
    assert differing(whole.run, run) == []


def rank_of(run: str, rank: str) -> int:
    """The process that is this rank of the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"output_dir={run}" in (folder / "cmdline").read_text().split("\0")
            variables = (folder / "environ").read_text(errors="replace") if ours else ""
        except OSError:
            # It has ended meanwhile.
            continue
        if f"RANK={rank}" in variables.split("\0"):
            return int(folder.name)
    raise AssertionError(f"no process is rank {rank} of {run}")
