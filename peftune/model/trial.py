"""What a class of somebody else's computes is shown by a trial with a few numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _disable_current_modes

T = TypeVar("T")
UNKNOWN = (AttributeError, RuntimeError, TypeError, ValueError)
"""What code raises that wants other numbers, or other layers, than it is tried with."""


def tried(attempt: Callable[[], T]) -> T | None:
    """What `attempt` finds, or None where the code that it calls wants something else."""
    try:
        with real_numbers():
            return attempt()
    except UNKNOWN:
        return None


@contextmanager
def real_numbers() -> Iterator[None]:
    """Inside, tensors have numbers, on the CPU and without gradients, also where those of a run are
    planned."""
    with _disable_current_modes(), torch.device("cpu"), torch.no_grad():
        yield
