"""Planned beside measured."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftune.engines.ranks import Ranks
from peftune.errors import LaunchError
from peftune.forecast.devices import Device
from peftune.forecast.exchange import Exchange
from peftune.forecast.forecast import Forecast
from peftune.forecast.records import MemoryWatch, close_loop, errors_beside
from tests.forecast.conftest import ONE

CPU = Device("this CPU", "cpu", 2**34)
PLANNED = Forecast(
    parts={"weights": 100},
    phases={"loading": 50, "training": 120},
    host=0,
    disk={},
    flops=1.0,
    exchange=Exchange(),
    step_seconds=0.5,
    steps=5,
    device=CPU,
    launch=ONE,
    frozen=10,
    trained=1,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run of five steps leaves: 100 bytes, and steps of 1 s, then of 0.4 s."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    memory = {"engine": "ddp", "device": "cpu", "ranks": [{"training": 100}]}
    (folder / "memory.json").write_text(json.dumps(memory))
    ends = [1.0, 2.0, 3.0, 3.4, 3.8]
    lines = [json.dumps({"step": n, "wall_s": end}) for n, end in enumerate(ends, 1)]
    (folder / "timings.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_plan_closes_the_loop_of_its_run(run: Path) -> None:
    close_loop(PLANNED, run)
    (error,) = errors_beside(run.parent / "second")
    assert (error.run, error.measured_bytes) == ("first", 100)
    assert error.measured_seconds == pytest.approx(0.4)
    assert error.memory_error == pytest.approx(0.2)
    assert error.time_error == pytest.approx(0.25)


def test_a_run_of_another_layout_says_nothing(run: Path) -> None:
    close_loop(replace(PLANNED, launch=replace(ONE, world_size=2)), run)
    close_loop(replace(PLANNED, device=replace(CPU, kind="cuda")), run)
    assert list(errors_beside(run)) == []


def test_files_of_that_name_that_no_plan_wrote(run: Path) -> None:
    """In a folder beside the runs they are somebody else's; in a run they are damaged."""
    other = run.parent / "weather"
    other.mkdir()
    (other / "forecast.json").write_text("[1, 2]")
    assert list(errors_beside(run)) == []
    (run / "forecast.json").write_text("[1, 2]")
    with pytest.raises(LaunchError, match=r"first/forecast.json: not what a plan writes there; "):
        list(errors_beside(run))


def test_phases_of_a_rank_are_written(tmp_path: Path) -> None:
    accelerator: Any = SimpleNamespace(
        process_index=0, num_processes=1, device=torch.device("cpu"), is_main_process=True
    )
    watch = MemoryWatch(Ranks(accelerator))
    for phase in ("loading the model", "training", "writing the results"):
        watch.at(phase)
    watch.write(tmp_path, "ddp")
    found = json.loads((tmp_path / "memory.json").read_text())
    assert found["engine"] == "ddp"
    assert [*found["ranks"][0]] == ["loading the model", "training"]
