"""Ranks that are silent, stuck or suspended, played by the other end of a connection."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftune.engines import lifeline
from peftune.engines.heartbeat import HEARTBEATS, Heartbeat, Record, main_stack
from peftune.engines.lifeline import Lifeline, Peer, stuck
from peftune.engines.section import RanksSection

WAITS = ["peftune/training/loop.py:190 accumulate", "torch/distributed/distributed_c10d.py:1 wait"]
READS = ["peftune/training/loop.py:150 micro_batches", "/data/rows.py:12 read"]


def beat(rank: int, stack: list[str]) -> Heartbeat:
    return Heartbeat(rank, f"host{rank}", "step 12", stack=stack)


class Other:
    """Rank 1, as rank 0 hears it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **patience: float) -> None:
        ours, self.theirs = socket.socketpair()
        self.ended, self.code = threading.Event(), None
        monkeypatch.setattr(lifeline, "BEAT_S", 0.02)
        monkeypatch.setattr(lifeline.os, "_exit", self.end)
        peer = Peer(ours, 1)
        peer.beat.host = "host1"
        usual = {"silent_s": 1e6, "stalled_s": 1e6}
        bounds = RanksSection.model_construct(**{**usual, **patience})
        self.lifeline = Lifeline(Heartbeat(0, "host0"), [peer], bounds)

    def end(self, code: int) -> None:
        """Instead of ending the process: the thread that wanted to goes no further."""
        self.code = code
        self.lifeline.closed.set()
        self.ended.set()

    def say(self, **message: Any) -> None:
        self.theirs.sendall((json.dumps(message) + "\n").encode())

    def hears(self) -> Iterator[dict[str, Any]]:
        for line in self.theirs.makefile("r"):
            yield json.loads(line)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Other] = []

    def make(**patience: float) -> Other:
        made.append(Other(monkeypatch, **patience))
        return made[-1]

    yield make
    for one in made:
        one.lifeline.closed.set()
        one.theirs.close()


def test_who_says_nothing_is_named_with_its_last_place(
    other: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rank = other(silent_s=0.3)
    rank.say(stage="step 12", stack=READS, idle_s=0.0)
    assert rank.ended.wait(30) and rank.code == 1
    first, *stack = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"error: rank 1 on host1 has been silent for \d+ s, during step 12, last seen at "
        r"/data/rows\.py:12 read; this run ends on every rank\.",
        first,
    )
    assert stack == ["rank 1 on host1 was last seen here:", *(f"  {line}" for line in READS)]


def test_who_keeps_all_waiting_is_named_with_its_stack(
    other: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "main_stack", lambda: WAITS)
    rank = other(stalled_s=500.0)
    rank.lifeline.at("step 12")
    rank.lifeline.own.moved -= 1000.0
    rank.say(stage="step 12", stack=READS, idle_s=1000.0)
    assert rank.ended.wait(30) and rank.code == 1
    first, *stack = capsys.readouterr().err.splitlines()
    assert first.startswith("error: no rank has got on for ")
    assert first.endswith(
        " s, during step 12; waited for: rank 1 on host1 at /data/rows.py:12 read; this run ends on "
        "every rank."
    )
    assert stack == ["rank 1 on host1 was last seen here:", *(f"  {line}" for line in READS)]


def test_as_long_as_one_rank_gets_on_nobody_is_stuck(other: Any) -> None:
    rank = other(stalled_s=500.0)
    rank.lifeline.at("step 12")
    rank.lifeline.own.moved -= 1000.0
    for _, message in zip(range(40), rank.hears(), strict=False):
        assert message.get("code") is None
        rank.say(stage="step 12", stack=READS, idle_s=0.0)
    assert not rank.ended.is_set()


def test_outside_of_steps_there_is_no_bound(other: Any) -> None:
    """Loading a large model is silent work."""
    rank = other(stalled_s=500.0)
    rank.lifeline.at("loading the model")
    rank.lifeline.own.moved -= 1000.0
    for _, _ in zip(range(20), rank.hears(), strict=False):
        rank.say(stage="loading the model", stack=READS, idle_s=1000.0)
    assert not rank.ended.is_set()


def test_after_being_suspended_nobody_else_is_blamed(
    other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that its scheduler has stopped and let go on finds everybody silent."""
    monkeypatch.setattr(lifeline, "SUSPENDED_S", 0.0)
    rank = other(silent_s=0.1)
    for _, _ in zip(range(20), rank.hears(), strict=False):
        pass
    assert not rank.ended.is_set()


def test_a_heartbeat_says_where_the_main_thread_is(other: Any) -> None:
    message = next(message for message in other().hears() if message["stack"])
    assert any(
        re.search(r"test_heartbeat\.py:\d+ test_a_heartbeat", one) for one in message["stack"]
    )
    assert message["stage"] == "starting"
    assert message["idle_s"] >= 0


@pytest.mark.parametrize(
    ("stacks", "said"),
    [
        ([WAITS, READS, WAITS], "waited for: rank 1 on host1 at /data/rows.py:12 read"),
        ([WAITS, WAITS], "all wait for each other: rank 0 on host0 at torch/dist"),
        ([READS] * 6, "rank 3 on host3 at /data/rows.py:12 read and 2 more"),
    ],
)
def test_who_is_waited_for(stacks: list[list[str]], said: str) -> None:
    line, culprit = stuck([beat(rank, stack) for rank, stack in enumerate(stacks)], 900.0)
    assert line.startswith("no rank has got on for 900 s, during step 12; ")
    assert said in line
    assert culprit.rank == (1 if READS in stacks and WAITS in stacks else 0)


def test_the_file_is_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    record, beats = Record(tmp_path), [beat(0, WAITS), beat(1, READS)]
    record.write(beats)
    first = json.loads((tmp_path / HEARTBEATS).read_text())
    beats[1].stage = "step 13"
    record.write(beats)
    assert json.loads((tmp_path / HEARTBEATS).read_text()) == first
    record.end(beats, 1, "rank 1 is gone")
    record.written = 0.0
    record.write(beats)
    last = json.loads((tmp_path / HEARTBEATS).read_text())
    assert (last["code"], last["error"], last["ranks"][1]["stage"]) == (
        1,
        "rank 1 is gone",
        "step 13",
    )
    assert abs(last["time"] - last["ranks"][0]["heard"]) < 60


def test_a_disk_that_takes_nothing_ends_no_run(tmp_path: Path) -> None:
    Record(tmp_path / "gone").end([beat(0, WAITS)], 0, "")


def test_paths_of_packages_are_short() -> None:
    assert not any("site-packages" in line for line in main_stack())
    assert any(line.startswith("_pytest/") for line in main_stack())
