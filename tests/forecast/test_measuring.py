"""Memory as torch's allocator reports it: what was there, what came, and what has gone."""

from pathlib import Path

import torch

from peftune.forecast.measuring import allocations

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
