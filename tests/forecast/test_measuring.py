"""Memory as torch's allocator reports it: what was there, what came, and what has gone."""

from pathlib import Path

import torch

from peftune.forecast.measuring import _Alive, allocations

CPU = torch.device("cpu")
MANY = 2**20


def test_what_comes_and_goes_is_counted() -> None:
    before = torch.zeros(MANY)
    with allocations(CPU) as found:
        one = torch.zeros(MANY)
        del one
        two = torch.zeros(2 * MANY)
    assert found.start >= 4 * MANY
    assert 0 <= found.peak - found.start - 8 * MANY < 10_000
    assert len(before) + len(two) == 3 * MANY


def test_room_that_is_given_back_counts_no_longer() -> None:
    before = torch.zeros(4 * MANY)
    with allocations(CPU) as found:
        del before
        after = torch.zeros(MANY)
    assert found.peak == found.start and len(after) == MANY


def test_a_mapped_file_goes_once(tmp_path: Path) -> None:
    """Its memory reports its own end, unlike that of other tensors that were there before."""
    torch.zeros(4 * MANY).numpy().tofile(tmp_path / "numbers")
    mapped = torch.from_file(str(tmp_path / "numbers"), size=4 * MANY)
    with allocations(CPU) as found:
        del mapped
        after = torch.zeros(6 * MANY)
    assert 0 <= found.peak - found.start - 8 * MANY < 10_000 and len(after) == 6 * MANY


def test_what_another_thread_gives_back_ends_where_its_place_is_taken_again() -> None:
    """torch's profiler sees one thread. Here 100 bytes are given back unseen, and half of them taken."""
    alive = _Alive()
    assert [alive.take(1000, 100), alive.take(1200, 50), alive.take(1100, 100)] == [0, 0, 0]
    assert alive.take(1040, 20) == 100
    assert alive.take(1060, 30) == 0 and alive.give_back(1000) == 0
    assert alive.take(900, 200) == 20 + 30
    assert [alive.give_back(place) for place in (1200, 900, 1100)] == [50, 200, 100]
    assert alive.starts == [] and alive.sizes == {}
