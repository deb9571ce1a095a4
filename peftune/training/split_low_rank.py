"""The functions of `low_rank.py` for bfloat16 layers on GPUs: products in parts, and no float32 copy of
anything as large as an input or an output. L layers, T tokens, K inputs, N outputs, R rank.
"""

from collections.abc import Sequence
from typing import Any

import torch

from peftune.model.remembering import remembered
from peftune.training.low_rank import Facts, Gradients, dense_weight, parted
from peftune.training.split_products import (
    gradient_by_high,
    gradient_by_low,
    split_factors,
    sum_of_parts,
    wide_product,
)

Tensors = tuple[torch.Tensor, ...]


class SplitAdaptedLinears(torch.autograd.Function):
    """x·Wᵀ + b + scaling · x·Aᵀ·Bᵀ of each layer that reads x, over frozen W and b. The update is rounded
    first, and what it is added to is not, in the product that both are rounded in: less is lost than the
    other way round. All adapters have the same rank."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: torch.Tensor | None,
        facts: Facts,
        *tensors: torch.Tensor,
    ) -> Tensors:
        ctx.set_materialize_grads(False)
        lows, highs, sources = parted(facts, tensors)

        def compute() -> tuple[Tensors, Tensors]:
            x_TK = x.flatten(0, -2)
            inner, low, each = factors(x_TK, lows, highs, kept, facts)
            made = []
            for reader, part, high in zip(
                facts.readers, inner.chunk(len(each), 1), each, strict=True
            ):
                bias, weight = reader.base.bias, dense_weight(reader.base, x.dtype)
                made_TN = part @ high if bias is None else torch.addmm(bias, part, high)
                made.append(made_TN.addmm_(x_TK, weight.T).unflatten(0, x.shape[:-1]))
            return tuple(made), (inner, low, *each)

        results, ours = remembered(compute)
        ctx.save_for_backward(kept, *ours, *sources)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[0]
        return results

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Gradients:
        facts: Facts = ctx.facts
        kept, inner, low, *others = ctx.saved_tensors
        layers = len(facts.readers)
        highs, sources = others[:layers], others[layers:]
        flat = [
            zeros_for(inner, high) if one is None else one.flatten(0, -2)
            for one, high in zip(grads, highs, strict=True)
        ]
        x = facts.again.input_of(facts.made_by, *sources)
        grad_inner, weights = gradients(facts, x, kept, inner, highs, flat)
        grad_x = None
        if ctx.reads:
            grad_TK = only(kept, grad_inner @ low)
            for reader, grad_TN in zip(facts.readers, flat, strict=True):
                grad_TK.addmm_(grad_TN, dense_weight(reader.base, x.dtype))
            grad_x = grad_TK.view_as(x)
        return grad_x, None, None, *weights, *(None,) * len(sources)


class SplitLowRankUpdate(torch.autograd.Function):
    """result + scaling · B·A·x."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        kept: torch.Tensor | None,
        facts: Facts,
        low_RK: torch.Tensor,
        high_NR: torch.Tensor,
        *sources: torch.Tensor,
    ) -> torch.Tensor:
        inner, low, (high,) = factors(x.flatten(0, -2), [low_RK], [high_NR], kept, facts)
        ctx.save_for_backward(kept, inner, low, high, *sources)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[1]
        return torch.addmm(result.flatten(0, -2), inner, high).view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        facts: Facts = ctx.facts
        kept, inner, low, high, *sources = ctx.saved_tensors
        x = facts.again.input_of(facts.made_by, *sources)
        flat = [grad.flatten(0, -2)]
        grad_inner, weights = gradients(facts, x, kept, inner, [high], flat)
        grad_x = only(kept, grad_inner @ low).view_as(x) if ctx.reads else None
        return grad, grad_x, None, None, *weights, *(None,) * len(sources)


def factors(
    x_TK: torch.Tensor,
    lows: Sequence[torch.Tensor],
    highs: Sequence[torch.Tensor],
    kept: torch.Tensor | None,
    facts: Facts,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """scaling · x·Aᵀ (T, L · 3 R), A (L · 3 R, K) and each Bᵀ (3 R, N), in parts."""
    low, each = split_factors(lows, highs)
    return sum_of_parts(wide_product(only(kept, x_TK), low.T), scales(facts)), low, each


def gradients(
    facts: Facts,
    x: torch.Tensor,
    kept: torch.Tensor | None,
    inner: torch.Tensor,
    highs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, Tensors]:
    """By x·Aᵀ in parts (T, L · 3 R), and by A (R, K) and B (N, R) of each layer."""
    found = [wide_product(grad_TN, high.T) for grad_TN, high in zip(grads, highs, strict=True)]
    grad_inner = sum_of_parts(torch.cat(found, dim=1), scales(facts))
    by_low = gradient_by_low(grad_inner, only(kept, x.flatten(0, -2)), len(highs))
    parts = zip(inner.chunk(len(highs), dim=1), grads, strict=True)
    by_high = [gradient_by_high(*pair) for pair in parts]
    pairs = zip(by_low, by_high, strict=True)
    return grad_inner, tuple(gradient for pair in pairs for gradient in pair)


def scales(facts: Facts) -> list[float]:
    """What dropout lifts is lifted where it is scaled."""
    return [reader.scaling * facts.lift for reader in facts.readers]


def only(kept: torch.Tensor | None, x_TK: torch.Tensor) -> torch.Tensor:
    """Zeros in the place of what is dropped."""
    return x_TK if kept is None else torch.where(kept.flatten(0, -2), x_TK, 0.0)


def zeros_for(inner: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The gradient by what nobody used, (T, N)."""
    return high.new_zeros(len(inner), high.shape[1])
