"""Products of bfloat16 with float32 on GPUs, whose fast units multiply bfloat16 alone: in parts.

A number of float32 is the sum of two of bfloat16 but for a share of 2**-17, which is 2**-8 of what
rounding a result to bfloat16 loses. Three products of parts stand for one of two float32 numbers, as
Henry, Tang and Heinecke 2019 (arXiv:1904.06376) do; they stand side by side in the rank of one product.

L layers that read the same input, T tokens, K inputs, N outputs, R rank.
"""

from collections.abc import Sequence

import torch

from peftune.model.devices import device_kind
from peftune.model.one_kernel import in_one_kernel

PARTS = 3


def is_split(x: torch.Tensor, factor: torch.Tensor) -> bool:
    """Whether a product of `x` with an adapter's factor is computed in parts. float16 has not the range
    that they need."""
    narrow = x.dtype is torch.bfloat16 and factor.dtype is torch.float32
    return narrow and device_kind(x) == "cuda"


@in_one_kernel
def split_factors(
    lows: Sequence[torch.Tensor], highs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """All A, one below the other, (L · 3 R, K), and each Bᵀ, (3 R, N): what is large, what is small, and
    again what is large."""
    low = torch.cat([part for one in lows for part in _factor_parts(one)])
    return low, [torch.cat(_factor_parts(one.T)) for one in highs]


def _factor_parts(factor: torch.Tensor) -> list[torch.Tensor]:
    large = factor.bfloat16()
    return [large, (factor - large).bfloat16(), large]


@in_one_kernel
def sum_of_parts(parts: torch.Tensor, scales: Sequence[float]) -> torch.Tensor:
    """What a product with `split_factors` found, times the scale of its layer, for a product with others:
    twice what is large, and what is small, (T, L · 3 R)."""
    large_TLR, small_TLR, _ = parts.view(len(parts), len(scales), PARTS, -1).unbind(2)
    layers = zip((large_TLR + small_TLR).unbind(1), scales, strict=True)
    return torch.cat([part for one, scale in layers for part in _number_parts(one * scale)], dim=1)


def _number_parts(numbers: torch.Tensor) -> list[torch.Tensor]:
    large = numbers.bfloat16()
    return [large, large, (numbers - large).bfloat16()]


def gradient_by_low(
    inner: torch.Tensor, x_TK: torch.Tensor, layers: int
) -> tuple[torch.Tensor, ...]:
    """innerᵀ·x of each layer, (R, K)."""
    parts = wide_product(inner.T, x_TK).view(layers, PARTS, -1, x_TK.shape[1])
    return (parts[:, 1] + parts[:, 2]).unbind()


def gradient_by_high(inner: torch.Tensor, grad_TN: torch.Tensor) -> torch.Tensor:
    """gradᵀ·inner of a layer, (N, R)."""
    _, large, small = wide_product(grad_TN.T, inner).chunk(PARTS, dim=1)
    return large + small


def wide_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a·b of bfloat16 numbers in float32."""
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    # Planned tensors have no numbers to lose, and memory for copies that no GPU makes.
    return (a @ b).float() if a.is_meta else a.float() @ b.float()
