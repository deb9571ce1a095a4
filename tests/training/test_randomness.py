"""Seeds are functions of what they are for, in every process and release."""

import subprocess
import sys

import torch

from peftune.training.randomness import derived_seed, seed_initialisation


def drawn() -> tuple[float, ...]:
    return tuple(torch.rand(4).tolist())


def test_the_initial_adapter_is_the_same_whatever_came_before() -> None:
    seed_initialisation(3)
    expected = drawn()
    torch.rand(1000)
    seed_initialisation(4)
    assert drawn() != expected
    seed_initialisation(3)
    assert drawn() == expected


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
