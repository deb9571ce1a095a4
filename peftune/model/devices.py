"""Which kind of device a tensor is on, where tensors without storage stand for those of a planned run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch

_planned: ContextVar[str] = ContextVar("planned", default="meta")
_kernels: ContextVar[AbstractContextManager[Any] | None] = ContextVar("kernels", default=None)


@contextmanager
def standing_for(kind: str, kernels: AbstractContextManager[Any]) -> Iterator[None]:
    """Inside, meta tensors count as tensors of such a device, `cpu` or `cuda`, with its `kernels`."""
    tokens = _planned.set(kind), _kernels.set(kernels)
    try:
        with kernels:
            yield
    finally:
        _planned.reset(tokens[0])
        _kernels.reset(tokens[1])


def kernels_again() -> AbstractContextManager[Any]:
    """The kernels once more, for layers that are computed again: torch has left its modes by then."""
    return _kernels.get() or nullcontext()


def device_kind(tensor: torch.Tensor) -> str:
    """`cpu`, `cuda` …: what decides which kernels compute with a tensor."""
    return _planned.get() if tensor.is_meta else tensor.device.type


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """What autocast gives products with a tensor of this device, or None where it is off."""
    kind = _autocast_kind(tensor)
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def without_autocast(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Inside, products with tensors of this device have the dtype of what is multiplied."""
    return torch.autocast(_autocast_kind(tensor), enabled=False)


def _autocast_kind(tensor: torch.Tensor) -> str:
    """Meta tensors know no autocast of their own; whoever computes with them asks for the CPU's."""
    return "cpu" if tensor.is_meta else tensor.device.type
