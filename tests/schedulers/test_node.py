"""The processes of a node: their places, their signals and their exit code."""

import os
import signal
import sys
from pathlib import Path

import pytest

from peftune.engines.launch import read_launch
from peftune.node import Processes, accelerate_variables, code_of, places
from tests.conftest import REPOSITORY


def config(name: str) -> str:
    return str(REPOSITORY / "accelerate_configs" / f"{name}.yaml")


def test_every_rank_has_a_place_of_its_own() -> None:
    found = [place for node in (0, 1) for place in places(node, 2, 3)]
    assert [int(place["RANK"]) for place in found] == [0, 1, 2, 3, 4, 5]
    assert [int(place["LOCAL_RANK"]) for place in found] == [0, 1, 2, 0, 1, 2]
    assert {place["WORLD_SIZE"] for place in found} == {"6"}


@pytest.mark.parametrize(
    ("file", "engine"),
    [("cpu_ddp", "ddp"), ("cpu_zero3", "zero3"), ("cpu_fsdp2", "fsdp2"), ("cpu", "ddp")],
)
def test_ranks_find_what_accelerate_launch_would_have_given_them(file: str, engine: str) -> None:
    (place,) = places(0, 1, 1)
    launch = read_launch({**accelerate_variables(config(file), 1), **place})
    assert (launch.engine, launch.use_cpu, launch.offload) == (engine, True, False)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], 0),
        ([75, 75], 75),
        # A rank that hears of the signal a moment later may lose the others first.
        ([75, 1], 75),
        ([-9, 1], 1),
        ([0, 2], 2),
        ([-9, -9], 137),
    ],
)
def test_the_code_of_a_node(codes: list[int], code: int) -> None:
    assert code_of(codes) == code


HEARS = """\
import os, signal, sys
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
open(sys.argv[1], "w").close()
while len(heard) < 2:
    signal.pause()
sys.exit(75 if heard == [int(sys.argv[2])] * 2 else 1)
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_every_rank_is_told_until_it_has_stopped(
    sent: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftune.node.AGAIN_S", 0.2)
    with Processes() as ranks:
        for name in ("a", "b"):
            command = [sys.executable, "-S", "-c", HEARS, str(tmp_path / name), str(int(sent))]
            ranks.start(command, dict(os.environ))
        while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
            pass
        os.kill(os.getpid(), sent)
        assert ranks.code() == 75


def test_a_signal_ends_no_rank_that_does_not_listen_yet(tmp_path: Path) -> None:
    """As while it imports."""
    command = f"touch {tmp_path}/began; while [ ! -f {tmp_path}/over ]; do :; done; exit 3"
    with Processes() as ranks:
        ranks.start(["bash", "-c", command], dict(os.environ))
        while not (tmp_path / "began").exists():
            pass
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            ranks.signal(number)
        (tmp_path / "over").touch()
        assert ranks.code() == 3


def test_a_node_that_is_told_to_stop_before_its_ranks_have_begun_starts_none() -> None:
    with Processes() as ranks:
        os.kill(os.getpid(), signal.SIGTERM)
        ranks.start(["false"], dict(os.environ))
        assert (ranks.started, ranks.code()) == ([], 75)


def test_what_hangs_after_another_has_failed_is_ended(tmp_path: Path) -> None:
    """A process that is stopped does not even hear that its run is over."""
    with Processes(patience_s=0.2) as ranks:
        ranks.start(["bash", "-c", "kill -STOP $$"], dict(os.environ))
        ranks.start(["bash", "-c", "exit 1"], dict(os.environ))
        assert ranks.code() == 1
        assert [process.returncode for process in ranks.started] == [-9, 1]
