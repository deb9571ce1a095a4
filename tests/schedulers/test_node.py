"""The processes of a node: their places, their signals and their exit code."""

import os
import signal
from pathlib import Path

import pytest

from peftune.engines.launch import read_launch
from peftune.node import Ranks, accelerate_variables, code_of, places
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


def start(ranks: Ranks, folder: Path, count: int) -> None:
    """Processes that say which signals they hear, and end with 75 at the end of their input."""
    hears = "trap 'echo TERM >> heard' TERM; trap 'echo USR1 >> heard' USR1"
    for index in range(count):
        command = (
            f"cd {folder}; {hears}; touch began-{index}; while [ ! -f over ]; do :; done; exit 75"
        )
        ranks.start(["bash", "-c", command], dict(os.environ))
    while not all((folder / f"began-{index}").exists() for index in range(count)):
        pass


@pytest.mark.parametrize(
    ("sent", "heard"), [(signal.SIGTERM, "USR1\nUSR1\n"), (signal.SIGUSR1, "TERM\nTERM\n")]
)
def test_every_rank_hears_of_a_signal_once_and_by_the_other_name(
    sent: signal.Signals, heard: str, tmp_path: Path
) -> None:
    """A scheduler that signals all processes of a node has then not said anything twice."""
    with Ranks() as ranks:
        start(ranks, tmp_path, 2)
        os.kill(os.getpid(), sent)
        while not (tmp_path / "heard").exists() or (tmp_path / "heard").read_text() != heard:
            pass
        (tmp_path / "over").touch()
        assert ranks.code() == 75


def test_a_node_that_is_told_to_stop_before_its_ranks_have_begun_starts_none() -> None:
    with Ranks() as ranks:
        os.kill(os.getpid(), signal.SIGTERM)
        ranks.start(["false"], dict(os.environ))
        assert (ranks.processes, ranks.code()) == ([], 75)


def test_what_hangs_after_another_has_failed_is_ended(tmp_path: Path) -> None:
    """A process that is stopped does not even hear that its run is over."""
    with Ranks(patience_s=0.2) as ranks:
        ranks.start(["bash", "-c", "kill -STOP $$"], dict(os.environ))
        ranks.start(["bash", "-c", "exit 1"], dict(os.environ))
        assert ranks.code() == 1
        assert [process.returncode for process in ranks.processes] == [-9, 1]
