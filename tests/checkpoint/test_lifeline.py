"""A rank that is gone takes the others with it within seconds, and is named."""

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from peftune.engines import lifeline
from peftune.engines.heartbeat import Heartbeat
from peftune.engines.lifeline import Lifeline, Peer
from peftune.engines.section import RanksSection
from peftune.status import read_status
from tests.checkpoint.processes import Started, start
from tests.conftest import write_recipe

HOST = re.escape(socket.gethostname())


@pytest.fixture
def recipe(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    tree = recipe_tree | {"export": {"merge": False, "verify": False}}
    return write_recipe(tmp_path, tree)


def errors(started: Started) -> list[str]:
    return [line for line in started.said.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_is_named_with_host_and_stage(
    victim: int, recipe: Path, tmp_path: Path
) -> None:
    more = ["train.max_steps=4000", "train.global_batch_size=12", "train.eval_steps=null"]
    started = start(recipe, tmp_path / "run", more, 3)
    started.wait_for("timings.jsonl")
    os.kill(started.pid(victim), signal.SIGKILL)
    began = time.monotonic()
    codes = started.ended()
    assert time.monotonic() - began < 10
    assert codes == [-9 if rank == victim else 1 for rank in range(3)]
    (line,) = errors(started)
    said = (
        rf"error: rank {victim} on {HOST} is gone, during step \d+; this run ends on every rank\."
    )
    assert re.fullmatch(said, line)
    assert "Traceback" not in started.said


def test_ranks_that_end_because_they_were_told_are_not_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(lifeline.os, "_exit", codes.append)
    pairs = {rank: socket.socketpair() for rank in (1, 2)}
    before = {*threading.enumerate()}
    own = Lifeline(
        Heartbeat(0, "here"), [Peer(pair[0], rank) for rank, pair in pairs.items()], RanksSection()
    )
    listening = [
        one for one in threading.enumerate() if one not in before and "_listen" in one.name
    ]
    for thread, (_, theirs) in zip(listening, pairs.values(), strict=True):
        theirs.close()
        thread.join()
    own.closed.set()
    assert codes == [1]
    assert capfd.readouterr().err == (
        "error: rank 1 on  is gone, during starting; this run ends on every rank.\n"
    )


def test_a_rank_that_only_waits_is_ended_too(recipe: Path, tmp_path: Path) -> None:
    """A stopped process holds its connections; the others wait in a collective until it is killed."""
    started = start(recipe, tmp_path / "run", ["train.max_steps=4000", "train.eval_steps=null"], 2)
    started.wait_for("timings.jsonl")
    os.kill(started.pid(1), signal.SIGSTOP)
    started.ranks[0].join(1.0)
    assert started.ranks[0].exitcode is None
    os.kill(started.pid(1), signal.SIGKILL)
    assert started.ended() == [1, -9]


def is_training(started: Started, rank: int) -> bool:
    """Whether a rank was last heard of in the train loop itself; the self-test uses parts of it."""
    beat = json.loads((started.run / "ranks.json").read_text())["ranks"][rank]
    in_loop = any(re.search(r"training/loop\.py:\d+ train$", line) for line in beat["stack"])
    return in_loop and beat["stage"].startswith("step ")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_rank_is_named_when_it_has_been_silent(
    victim: int, recipe: Path, tmp_path: Path
) -> None:
    """A process that is stopped holds its connections and says nothing."""
    more = ["train.max_steps=4000", "train.eval_steps=null", "ranks.silent_s=2"]
    started = start(recipe, tmp_path / "run", more, 2)
    started.wait_for("ranks.json")
    # A stack is up to a second old: that of the first steps may still be of what came before them.
    while not is_training(started, victim):
        started.ranks[victim].join(0.1)
        assert started.ranks[victim].is_alive()
    os.kill(started.pid(victim), signal.SIGSTOP)
    started.ranks[1 - victim].join(60)
    assert started.ranks[1 - victim].exitcode == 1
    os.kill(started.pid(victim), signal.SIGKILL)
    (line,) = errors(started)
    said = (
        rf"error: rank {victim} on {HOST} has been silent for \d+ s, during step \d+, last seen at "
        r"\S+:\d+ .+; this run ends on every rank\."
    )
    assert re.fullmatch(said, line)
    stack = started.said.partition(
        f"rank {victim} on {HOST.replace(chr(92), '')} was last seen here:\n"
    )[2]
    assert re.search(r"^  \S*peftune/training/loop\.py:\d+ train$", stack, re.MULTILINE), stack
    if victim == 1:
        found = read_status(started.run, time.time())
        assert (found.state, found.last_error) == ("failed", line[7:].partition(";")[0])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_rank_before_training_ends_both_with_its_code(
    victim: int, recipe: Path, tmp_path: Path
) -> None:
    started = start(recipe, tmp_path / "run", world_size=2)
    started.wait_for("recipe.yaml")
    os.kill(started.pid(victim), signal.SIGTERM)
    assert started.ended() == [75, 75], started.said[-3000:]
    assert "Traceback" not in started.said


def test_an_error_of_rank_0_alone_ends_all_with_its_code(recipe: Path, tmp_path: Path) -> None:
    """Its log cannot be written: the folder is gone."""
    more = ["train.max_steps=4000", "train.eval_steps=null"]
    started = start(recipe, tmp_path / "run", more, 2)
    started.wait_for("timings.jsonl")
    os.rename(started.run, tmp_path / "elsewhere")
    assert started.ended() == [1, 1]
    assert "metrics.jsonl was not written: No such file or directory" in errors(started)[0]
    assert "Traceback" not in started.said
