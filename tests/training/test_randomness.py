"""Random numbers that depend on (seed, step, rank) alone, so that a run can be repeated."""

import subprocess
import sys
from itertools import product

import torch

from peftune.training.randomness import derived_seed, seed_initialisation, seed_step


def drawn() -> tuple[float, ...]:
    return tuple(torch.rand(4).tolist())


def test_a_step_draws_the_same_numbers_whatever_came_before() -> None:
    seed_step(3, 5, 0)
    expected = drawn()
    seed_initialisation(99)
    torch.rand(1000)
    seed_step(3, 5, 0)
    assert drawn() == expected


def test_every_seed_step_and_rank_draws_its_own() -> None:
    """Ranks that dropped the same units would waste the noise of all but one of them."""
    draws = set()
    for seed, step, rank in product((0, 1), (0, 1, 11), (0, 1, 11)):
        seed_step(seed, step, rank)
        draws.add(drawn())
    assert len(draws) == 18


def test_the_initial_adapter_has_its_own_stream() -> None:
    starts = {}
    for seed in (0, 1, 0):
        seed_initialisation(seed)
        starts.setdefault(seed, set()).add(drawn())
    seed_step(0, 0, 0)
    assert {len(draws) for draws in starts.values()} == {1}
    assert starts[0].isdisjoint(starts[1])
    assert drawn() not in starts[0]


def test_parts_are_not_run_together() -> None:
    seeds = {derived_seed(1, 23), derived_seed(12, 3), derived_seed(123), derived_seed(1, 2, 3)}
    assert len(seeds) == 4


def test_derived_seeds_fit_what_torch_takes() -> None:
    seeds = [derived_seed(seed, "step", 0, 0) for seed in (0, 1, 2**64 - 1, *range(100, 300))]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_a_seed_is_the_same_in_every_release_and_process() -> None:
    """Python salts its own hash in each process; ranks must not differ by it."""
    expected = 7_922_695_148_644_137_198
    assert derived_seed(3, "step", 5, 0) == expected
    code = (
        "from peftune.training.randomness import derived_seed; print(derived_seed(3, 'step', 5, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == expected
