"""Frozen linear layers with low-rank updates, and such an update alone, as functions that keep little
and know their gradients.

T tokens, K inputs, N outputs, R rank, S the ranks of all layers that read the same input.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from peftune.model.devices import device_kind
from peftune.model.frozen_products import product
from peftune.model.remembering import remembered
from peftune.quantization import LAYERS, training_weight
from peftune.training.cheap_inputs import Again

Gradients = tuple[torch.Tensor | None, ...]


class Reader(NamedTuple):
    """A layer that reads the input, but for its adapter's tensors."""

    base: Any
    scaling: float

    def adapted(
        self, x_TK: torch.Tensor, inner_TR: torch.Tensor, high_NR: torch.Tensor
    ) -> torch.Tensor:
        """What it makes of an input, (T, N)."""
        made_TN = product(x_TK, dense_weight(self.base, x_TK.dtype), self.base.bias)
        sum_TN = _as(made_TN, high_NR).addmm_(inner_TR, high_NR.T, alpha=self.scaling)
        return _as(sum_TN, x_TK)

    def add_gradient(self, total_TK: torch.Tensor | None, grad_TN: torch.Tensor) -> torch.Tensor:
        """`total_TK`, in the dtype of A, and the gradient that comes through its base."""
        weight_NK = dense_weight(self.base, grad_TN.dtype)
        if total_TK is not None and weight_NK.dtype is grad_TN.dtype is total_TK.dtype:
            return total_TK.addmm_(grad_TN, weight_NK)
        part_TK = product(grad_TN, weight_NK.T)
        return part_TK if total_TK is None else total_TK.add_(part_TK)


class Facts(NamedTuple):
    """What a function knows besides its tensors."""

    readers: tuple[Reader, ...]
    lift: float
    """What kept numbers are multiplied with where others are dropped."""
    again: Again
    made_by: Callable[..., torch.Tensor] | None
    """What made the input of what is kept, where that is computed again."""

    def dropped(self, x_TK: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """What dropout leaves of `x_TK`; `kept` has the shape of the layers' input."""
        if kept is None:
            return x_TK
        return torch.where(kept.flatten(0, -2), x_TK * self.lift, 0.0)


class AdaptedLinears(torch.autograd.Function):
    """x·Wᵀ + b + scaling · x·Aᵀ·Bᵀ of each layer that reads x, over frozen W and b: summed in the dtype
    of A, rounded to that of x.

    `tensors` are A (R, K) and B (N, R) of the first layer, those of the second, and so on; then what the
    input is made of. That is kept and converted once for all of them, and its gradients are summed in
    place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        kept: torch.Tensor | None,
        facts: Facts,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        lows, highs, _ = parted(facts, tensors)

        def compute() -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
            x_TK = x.flatten(0, -2)
            inner_TS = functional.linear(facts.dropped(_as(x_TK, lows[0]), kept), _joined(lows))
            inners = inner_TS.split([len(low) for low in lows], dim=1)
            each = zip(facts.readers, inners, highs, strict=True)
            made = [reader.adapted(x_TK, *pair) for reader, *pair in each]
            return tuple(one.unflatten(0, x.shape[:-1]) for one in made), inner_TS

        results, inner_TS = remembered(compute)
        ctx.save_for_backward(inner_TS, kept, *tensors)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[0]
        return results

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> Gradients:
        facts: Facts = ctx.facts
        inner_TS, kept, *tensors = ctx.saved_tensors
        lows, highs, sources = parted(facts, tensors)
        grad_TS, grad_highs, total_TK = through_readers(facts, inner_TS, highs, grads, ctx.reads)
        x = facts.again.input_of(facts.made_by, *sources)
        grad_SK = grad_TS.T @ facts.dropped(_as(x.flatten(0, -2), grad_TS), kept)
        pairs = zip(grad_SK.split([len(low) for low in lows]), grad_highs, strict=True)
        weights = [gradient for pair in pairs for gradient in pair]
        grad_x = None
        if total_TK is not None:
            if kept is None:
                total_TK.addmm_(grad_TS, _joined(lows))
            else:
                total_TK += facts.dropped(grad_TS @ _joined(lows), kept)
            grad_x = _as(total_TK, x).view_as(x)
        return grad_x, None, None, *weights, *(None,) * len(sources)


def through_readers(
    facts: Facts,
    inner_TS: torch.Tensor,
    highs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor | None],
    reads: bool,
) -> tuple[torch.Tensor, list[torch.Tensor | None], torch.Tensor | None]:
    """Gradients by x·Aᵀ of all layers (T, S), by each B, and, where the input `reads` one, by x through
    W alone. Layers that nobody used have none."""
    grad_TS, total_TK = torch.zeros_like(inner_TS), None
    grad_highs: list[torch.Tensor | None] = [None] * len(highs)
    ranks = [high.shape[1] for high in highs]
    inners, grad_inners = inner_TS.split(ranks, dim=1), grad_TS.split(ranks, dim=1)
    for index, (reader, grad) in enumerate(zip(facts.readers, grads, strict=True)):
        if grad is None:
            continue
        grad_TN = grad.flatten(0, -2)
        wide_TN = _as(grad_TN, grad_TS)
        grad_inners[index].addmm_(wide_TN, highs[index], beta=0.0, alpha=reader.scaling)
        # This way round the product takes half as long.
        high_RN = (inners[index].T @ wide_TN).mul_(reader.scaling)
        grad_highs[index] = high_RN.T.contiguous()
        if reads:
            total_TK = _as(reader.add_gradient(total_TK, grad_TN), grad_TS)
    return grad_TS, grad_highs, total_TK


class LowRankUpdate(torch.autograd.Function):
    """result + scaling · B·A·x, computed in the dtype of A and rounded once to that of `result`."""

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
        (reader,) = facts.readers
        x_TK = facts.dropped(_as(x.flatten(0, -2), low_RK), kept)
        inner_TR = functional.linear(x_TK, low_RK)
        ctx.save_for_backward(inner_TR, kept, low_RK, high_NR, *sources)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[1]
        flat_TN = _as(result.flatten(0, -2), high_NR)
        sum_TN = torch.addmm(flat_TN, inner_TR, high_NR.T, alpha=reader.scaling)
        return _as(sum_TN, result).view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        facts: Facts = ctx.facts
        (reader,) = facts.readers
        inner_TR, kept, low_RK, high_NR, *sources = ctx.saved_tensors
        wide_TN = _as(grad.flatten(0, -2), high_NR)
        grad_TR = wide_TN @ high_NR * reader.scaling
        grad_high = (inner_TR.T @ wide_TN).mul_(reader.scaling).T.contiguous()
        x = facts.again.input_of(facts.made_by, *sources)
        grad_low = grad_TR.T @ facts.dropped(_as(x.flatten(0, -2), low_RK), kept)
        grad_x = None
        if ctx.reads:
            grad_x = _as(facts.dropped(grad_TR @ low_RK, kept), x).view_as(x)
        return grad, grad_x, None, None, grad_low, grad_high, *(None,) * len(sources)


def parted(
    facts: Facts, tensors: Sequence[torch.Tensor]
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """A of each layer, B of each, and what the input is made of."""
    weights = 2 * len(facts.readers)
    return tensors[:weights:2], tensors[1:weights:2], tensors[weights:]


def has_dense_weight(base: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether a frozen layer multiplies `x` with a weight as it is, or dequantized.

    On GPUs bitsandbytes has kernels of its own for 8 bits, and for a single token with 4 bits.
    """
    if type(base) is torch.nn.Linear:
        return not base.weight.requires_grad
    on_cpu, name = device_kind(x) == "cpu", type(base).__name__
    return name in LAYERS and (on_cpu or (name == "Linear4bit" and x.numel() > x.shape[-1]))


def product_format(base: Any, dtype: torch.dtype) -> torch.dtype:
    """The number format in which a layer multiplies inputs of `dtype`."""
    if type(base) is torch.nn.Linear:
        weight_dtype: torch.dtype = base.weight.dtype
        return weight_dtype
    return (type(base).__name__ == "Linear4bit" and base.compute_dtype) or dtype


def dense_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """What inputs of `dtype` are multiplied with, (N, K)."""
    return base.weight if type(base) is torch.nn.Linear else training_weight(base, dtype)


def _joined(lows: Sequence[torch.Tensor]) -> torch.Tensor:
    """All A, one below the other, (S, K)."""
    return lows[0] if len(lows) == 1 else torch.cat([*lows])


def _as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tensor.to(like.dtype)
