"""Ranks that look for each other in threads of this process: who is missing or wrong is named."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from peftune.engines import meeting
from peftune.engines.launch import Launch
from peftune.engines.meeting import meet, tell
from peftune.engines.section import RanksSection
from peftune.errors import LaunchError, ModelError
from tests.launching import free_port

SHORT = RanksSection(wait_s=0.6)


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where rank 0 will be, and hosts that are told apart by their threads."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(meeting, "NAMED_AFTER_S", 0.2)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    return f"127.0.0.1:{meeting.os.environ['MASTER_PORT']}"


def launch(rank: int, world_size: int) -> Launch:
    return Launch("ddp", world_size, rank, use_cpu=True, wants_gpu=False, offload=False)


def met(places: Sequence[tuple[int, int]], patience: RanksSection = SHORT) -> list[Any]:
    """What each process of `places` (rank and world size) gets: a meeting, or its error as text."""

    def one(place: tuple[int, int]) -> Any:
        try:
            return meet(launch(*place), {"place": place[0]}, patience)
        except LaunchError as error:
            return str(error)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def test_all_know_what_each_has_brought() -> None:
    found = met([(2, 3), (0, 3), (1, 3)], RanksSection())
    for one in found:
        assert [(arrival.rank, arrival.facts["place"]) for arrival in one.arrivals] == [
            (0, 0),
            (1, 1),
            (2, 2),
        ]
    found[0].store.set("key", "value")
    assert found[1].store.get("key") == b"value"


def test_two_processes_with_one_number() -> None:
    found = met([(0, 3), (1, 3), (1, 3)], RanksSection())
    for said in found:
        assert said.startswith("two processes are rank 1: ")
        assert said.endswith(" on here; give every node its own --machine_rank.")


def test_other_numbers_of_processes() -> None:
    found = met([(0, 2), (1, 3)], RanksSection())
    for said in found:
        assert "2 on rank 0 on here" in said and "3 on rank 1 on here" in said
        assert said.endswith("give every node the same --num_processes and --num_machines.")


def test_who_does_not_come_is_named_before_patience_ends(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = met([(0, 4), (2, 4)])
    for said in found:
        assert said.startswith(f"ranks 1, 3 have not come to {address} (here: rank ")
    warned = capsys.readouterr().err
    assert warned.count("warning: ranks 1, 3 have not come") == 1
    assert "Look at the output of the missing nodes" in warned
    assert "The run ends in" in warned


def test_an_address_where_nobody_is(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    (said,) = met([(1, 2)])
    expected = (
        f"rank 1 on here cannot reach rank 0 at {address} (Connection refused); start it, open"
    )
    assert said.startswith(expected)
    # Rank 0 is not there to speak for it.
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"warning: {expected}") and first.endswith(" s more.")
    assert last == f"warning: {said}"


def test_a_port_that_is_taken(address: str) -> None:
    found = met([(0, 2), (0, 2)])
    taken = f"rank 0 on here cannot listen at {address}"
    assert sum(said.startswith(taken) for said in found) == 1
    assert "or a second one was started as rank 0" in "".join(found)


def test_a_rank_that_ended_before_it_came_is_named_with_its_reason() -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(met, [(0, 2)], RanksSection())
        tell(launch(1, 2), ModelError("no such folder."))
        assert waiting.result() == ["rank 1 on here: no such folder."]


def test_a_rank_that_nobody_hears_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "TELLING_S", 0.1)
    tell(launch(1, 2), ModelError("no such folder."))


@pytest.mark.parametrize("first", [0, 1])
def test_another_number_of_processes_comes_before_what_it_spoils(first: int) -> None:
    own = meeting.arrival_of(launch(0, 2), {})
    failed = meeting.arrival_of(launch(1, 3), {}, "4 is not a multiple of 6.")
    said = meeting.wrong([own, failed] if first == 0 else [failed, own])
    assert said is not None
    assert said.startswith("the number of processes is ") and "a multiple" not in said


def test_the_first_to_come_hears_it_from_one_that_failed() -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(met, [(0, 2)], RanksSection())
        tell(launch(1, 3), ModelError("4 is not a multiple of 6."))
        (said,) = waiting.result()
    assert said.startswith("the number of processes is ") and "a multiple" not in said
