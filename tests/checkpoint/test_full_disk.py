"""A disk that takes nothing more: the message says what it would have taken, and all that was there
stays, so that the run goes on when there is room again."""

import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftune.checkpoint.folder import checkpoint_steps, problem_with
from tests.checkpoint.killing import differing
from tests.checkpoint.processes import Started, start
from tests.conftest import write_recipe
from tests.launching import metrics

NEEDS = r"was not written: .+; it needs ([\d,]+) bytes\."
LONG = ["train.max_steps=60", "train.eval_steps=20"]


@pytest.fixture
def recipe(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    return write_recipe(tmp_path, recipe_tree)


@pytest.fixture
def whole(recipe: Path, tmp_path: Path) -> Path:
    """The run on a disk with room."""
    started = start(recipe, tmp_path / "whole", LONG)
    assert started.ended() == [0], started.said[-3000:]
    return started.run


def limit_files(started: Started, size: int) -> None:
    """No file of the process may grow beyond so many bytes from now on."""
    resource.prlimit(started.pid(0), resource.RLIMIT_FSIZE, (size, size))


def refused(started: Started, name: str) -> int:
    """The bytes that the message says `name` needs; the run has ended with 1 and one line of error."""
    assert started.ended() == [1], started.said[-3000:]
    (line,) = [one for one in started.said.splitlines() if one.startswith("error: ")]
    found = re.search(rf"{re.escape(name)} {NEEDS}", line)
    assert found, line
    return int(found[1].replace(",", ""))


def goes_on(recipe: Path, run: Path, whole: Path) -> None:
    again = start(recipe, run, [*LONG, "resume=auto"])
    assert again.ended() == [0], again.said[-3000:]
    assert differing(run, whole) == []


def test_a_checkpoint(recipe: Path, whole: Path, tmp_path: Path) -> None:
    started = start(recipe, tmp_path / "run", [*LONG, "train.save_steps=10"])
    started.wait_for("checkpoint-10/manifest.json")
    limit_files(started, 40_000)
    needed = refused(started, "state.safetensors")
    state = (started.run / "checkpoint-10" / "state.safetensors").stat().st_size
    assert 0.8 * state < needed <= state
    steps = checkpoint_steps(started.run)
    assert [problem_with(started.run / f"checkpoint-{step}") for step in steps] == [None] * len(
        steps
    )
    assert f"The last good checkpoint is {started.run}/checkpoint-{steps[-1]}." in started.said
    goes_on(recipe, started.run, whole)


@pytest.mark.thorough
def test_the_log_of_metrics(recipe: Path, tmp_path: Path) -> None:
    """It grows beyond the log of this test, which has the same limit."""
    overrides = ["train.max_steps=110", "train.eval_steps=110", "train.save_steps=100"]
    started = start(recipe, tmp_path / "run", overrides)
    started.wait_for("checkpoint-100/manifest.json")
    limit_files(started, (started.run / "metrics.jsonl").stat().st_size)
    assert 0 < refused(started, "metrics.jsonl") < 500
    assert f"The last good checkpoint is {started.run}/checkpoint-100." in started.said
    assert steps_of(started.run)[:100] == list(range(1, 101))
    again = start(recipe, started.run, [*overrides, "resume=auto"])
    assert again.ended() == [0], again.said[-3000:]
    assert steps_of(started.run) == list(range(1, 111))


def steps_of(run: Path) -> list[int]:
    """The steps of which the log of metrics has a whole line."""
    return [line["step"] for line in metrics(run) if "loss" in line]


@pytest.mark.thorough
def test_the_final_artefacts(recipe: Path, whole: Path, tmp_path: Path) -> None:
    started = start(recipe, tmp_path / "run", [*LONG, "train.save_steps=10"])
    started.wait_for("train_results.json")
    limit_files(started, 40_000)
    needed = refused(started, "probe.safetensors")
    kept = (whole / "probe.safetensors").stat().st_size
    assert 0.9 * kept < needed <= kept
    assert (started.run / "adapter_model.safetensors").is_file()
    goes_on(recipe, started.run, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one checkpoint and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_file_system(recipe: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    more = ["train.save_steps=1", "train.save_total_limit=100", "export.merge=false"]
    # The preflight would refuse so small a disk; here it is to be filled.
    more.append("ranks.accept=[disk]")
    # Log and cache stand beside the run, so they are on the small disk too.
    started = start(recipe, run, [*LONG, *more])
    assert started.ended() == [1], started.said[-3000:]
    assert re.search(NEEDS, started.said) and "No space left" in started.said
    steps = checkpoint_steps(run)
    assert steps and problem_with(run / f"checkpoint-{steps[-1]}") is None
