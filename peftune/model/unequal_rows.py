"""Attention of all rows by one kernel, which torch has for GPUs in half precision."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn

from peftune.model.devices import device_kind
from peftune.model.documents import Reading

LARGEST_HEAD = 256
"""Of torch's flash attention."""


def has_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch has a kernel for rows of unequal length: on GPUs, in half precision."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    on_gpu = device_kind(query) == "cuda"
    return on_gpu and half and query.shape[-1] == value.shape[-1] <= LARGEST_HEAD


def all_rows_at_once(
    reading: Reading,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """What all rows attend to, (1, tokens, heads, size)."""
    assert reading.own is not None
    own, seen = reading.own, reading.seen
    shared = query.shape[1] // key.shape[1]
    if shared > 1 and not (key.is_cuda and shares_keys()):
        key, value = (one.repeat_interleave(shared, dim=1) for one in (key, value))
    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    made = varlen_attn(
        q,
        k,
        v,
        own.starts,
        seen.starts,
        own.width,
        seen.width,
        scale=scaling,
        window_size=(-1, 0 if causal else -1),
    )
    assert isinstance(made, torch.Tensor)
    return made[None]


@cache
def shares_keys() -> bool:
    """Whether the kernel lets several heads look at the same keys, forward and backward: a trial shows,
    because torch's documentation does not say. In a thread of its own it is no part of what a layer keeps
    that will be computed again."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_tried).result()


def _tried() -> bool:
    q, k, v = (_numbers(heads) for heads in (4, 2, 2))
    try:
        shared = _outcome(q, k, v, k, v)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    repeated = _outcome(q, k, v, *(one.repeat_interleave(2, dim=1) for one in (k, v)))
    return all(map(_near, shared, repeated))


def _numbers(heads: int) -> torch.Tensor:
    """Of eight tokens, (8, heads, 64)."""
    numbers = torch.arange(8 * heads * 64, device="cuda", dtype=torch.float32)
    return torch.sin(7.0 * numbers).view(8, heads, 64).bfloat16().requires_grad_()


def _outcome(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What rows of three and five tokens attend to, and gradients by q, k and v."""
    starts: Any = torch.tensor([0, 3, 8], dtype=torch.int32, device="cuda")
    made = varlen_attn(q, keys, values, starts, starts, 5, 5, window_size=(-1, 0))
    assert isinstance(made, torch.Tensor)
    return made, *torch.autograd.grad(made.float().square().sum(), (q, k, v))


def _near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a.float() - b.float()).norm() < 0.02 * b.float().norm())
