"""Checkpoint folders: written aside, renamed when complete, the best and the newest kept."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

NAME = re.compile(r"checkpoint-(\d+)")


def write_checkpoint(run_folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder and give it its name only when it is complete."""
    final = run_folder / f"checkpoint-{step}"
    aside = run_folder / f"checkpoint-{step}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    os.replace(aside, final)
    return final


def checkpoint_steps(run_folder: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    matches = (NAME.fullmatch(entry.name) for entry in run_folder.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def prune_checkpoints(run_folder: Path, limit: int, best_step: int | None) -> None:
    """Delete the oldest checkpoints over `limit`; the newest and the best one always stay."""
    steps = checkpoint_steps(run_folder)
    removable = [step for step in steps[:-1] if step != best_step]
    for step in removable[: max(0, len(steps) - limit)]:
        shutil.rmtree(run_folder / f"checkpoint-{step}")
