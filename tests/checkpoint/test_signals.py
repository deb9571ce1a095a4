"""Asked to stop, a run ends after its step with a checkpoint, and goes on from there exactly."""

import json
import os
import re
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from peftune.errors import Interrupted
from peftune.signals import Signals
from tests.checkpoint.killing import differing
from tests.checkpoint.processes import Started, preloaded, start
from tests.conftest import write_recipe

SIGNALS = ["SIGTERM", "SIGUSR1", "SIGINT"]
# The first step is late enough for a signal, and nothing else is.
LONG = ["train.max_steps=400", "train.eval_steps=100", "train.lr_scheduler_type=constant"]


def wait_for_step(started: Started, step: int) -> None:
    while steps_of(started.run) < step:
        started.ranks[0].join(0.005)
        assert started.ranks[0].exitcode is None, started.said[-3000:]


def steps_of(run: Path) -> int:
    log = run / "timings.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


@pytest.fixture
def recipe(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    tree = recipe_tree | {"export": {"merge": False, "verify": False}}
    return write_recipe(tmp_path, tree)


@pytest.mark.parametrize("name", SIGNALS)
def test_one_rank(name: str, recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = start(recipe, run, LONG)
    wait_for_step(started, 3)
    os.kill(started.pid(0), signal.Signals[name])
    assert started.ended() == [75]
    said = (
        rf"stopped after step (\d+) by {name}; checkpoint-\1 is in {run}\. Go on with resume: auto"
    )
    (step,) = re.findall(said, started.said)
    assert (run / f"checkpoint-{step}").is_dir()
    assert steps_of(run) == int(step)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.thorough), 1])
def test_two_ranks_whichever_is_asked(victim: int, recipe: Path, tmp_path: Path) -> None:
    """Both end with the code, in the step they are in or the next, and the run goes on exactly."""
    run, overrides = tmp_path / "run", ["train.max_steps=60", "train.eval_steps=20"]
    started = start(recipe, run, overrides, 2)
    wait_for_step(started, 3)
    os.kill(started.pid(victim), signal.SIGTERM)
    seen = steps_of(run)
    assert started.ended() == [75, 75]
    who = "SIGTERM" if victim == 0 else "a signal to another rank"
    assert f"by {who}; checkpoint-" in started.said
    # One step may end while the signal is on its way, and one more while it is counted.
    assert seen <= steps_of(run) <= seen + 2
    assert start(recipe, run, [*overrides, "resume=auto"], 2).ended() == [0, 0]
    assert start(recipe, tmp_path / "whole", overrides, 2).ended() == [0, 0]
    assert differing(run, tmp_path / "whole") == []


def long_step(heard: Connection) -> None:
    """A step that is long, and goes on after the signal that asks it to stop."""
    step = threading.Event()
    with Signals() as signals, signals.waiting():
        heard.send("in the step")
        while signals.received is None:
            step.wait(0.01)
        heard.send("asked")
        step.wait()


def test_a_second_signal_ends_at_once() -> None:
    """While a step is long: the second one does not wait for its end."""
    told, heard = preloaded().Pipe(duplex=False)
    process = preloaded().Process(target=long_step, args=(heard,), daemon=True)
    process.start()
    for state in ("in the step", "asked"):
        assert told.recv() == state
        os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == -signal.SIGTERM


def test_before_training_it_ends_with_the_same_code(recipe: Path, tmp_path: Path) -> None:
    started = start(recipe, tmp_path / "run", halts_at="rehearse")
    started.wait_for("recipe.yaml")
    os.kill(started.pid(0), signal.SIGUSR1)
    assert started.ended() == [75]
    assert "error: stopped by SIGUSR1; go on later with resume: auto" in started.said


def test_after_so_many_hours(recipe: Path, tmp_path: Path) -> None:
    started = start(recipe, tmp_path / "run", [*LONG, "train.max_hours=1.0e-5"])
    assert started.ended() == [75]
    assert "stopped after step 1 by train.max_hours: 1e-05; checkpoint-1 is in" in started.said


def test_a_checkpoint_every_so_many_minutes(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    every_step = ["train.save_every_minutes=1.0e-6", "train.save_total_limit=100"]
    assert start(recipe, run, every_step).ended() == [0]
    steps = sorted(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*"))
    assert steps == [1, 2, 3, 4, 5, 6]


def test_outside_of_steps_a_signal_raises_and_inside_it_waits() -> None:
    with pytest.raises(Interrupted, match="stopped by SIGUSR1"), Signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    with Signals() as signals, pytest.raises(Interrupted), signals.waiting():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received is signal.SIGUSR1


def test_a_scheduler_may_say_the_same_in_many_ways() -> None:
    """It ends by SIGKILL what does not obey, so nothing else ends a run without its checkpoint."""
    with Signals(patient=True) as signals, pytest.raises(Interrupted), signals.waiting():
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert signals.received is signal.SIGTERM


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(signal.Signals[name]) for name in SIGNALS]
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(signal.Signals[name]) for name in SIGNALS] == before


def test_the_last_line_of_progress_is_that_of_the_checkpoint(recipe: Path, tmp_path: Path) -> None:
    """A run that was stopped twice has each step once in its log."""
    run = tmp_path / "run"
    for _ in range(2):
        overrides = ["train.max_steps=60", "train.eval_steps=20", "resume=auto"]
        before = steps_of(run)
        started = start(recipe, run, overrides)
        wait_for_step(started, before + 3)
        os.kill(started.pid(0), signal.SIGTERM)
        assert started.ended() == [75]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
