"""Runs under the launcher files of GPUs, with as many ranks as a test asks for."""

import subprocess
from pathlib import Path

import pytest
import torch

from tests.launching import environment, free_port, largest_difference, launch_command, metrics

# Sums in another order: kernels of a GPU against those of a CPU, or of two ranks against one.
ROUNDING = 1e-4


def needs(gpus: int) -> list[pytest.MarkDecorator]:
    """Marks for tests that need so many GPUs."""
    found = torch.cuda.device_count()
    reason = f"needs {gpus} GPU{'s' * (gpus > 1)} with CUDA, this machine has {found}"
    return [pytest.mark.gpu, pytest.mark.skipif(found < gpus, reason=reason)]


def gpu_run(config: str, ranks: int, recipe: Path, run: Path, *overrides: str) -> Path:
    """Train and return the run's folder; fails with the end of the output."""
    command = launch_command(config, free_port(), "--num_processes", str(ranks))
    done = subprocess.run(
        [*command, str(recipe), f"output_dir={run}", *overrides],
        cwd=recipe.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return run


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def apart(reference: Path, other: Path) -> float:
    """Largest relative difference of the losses, in training and in validation."""
    return max(largest_difference(reference, other, key) for key in ("loss", "eval_loss"))
