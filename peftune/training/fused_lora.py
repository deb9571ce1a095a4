"""An adapted linear layer as one function: its input is kept once, in its own dtype.

peft converts the input to the adapter's dtype anew for each layer, and keeps every copy for the
backward pass; it adds what the adapter makes to what the layer makes in memory of its own, and autograd
adds their gradients in more. T tokens, K inputs, N outputs, R rank.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional

from peftune.model.devices import autocast_dtype, device_kind
from peftune.model.frozen_products import product
from peftune.model.remembering import remembered
from peftune.quantization import LAYERS, training_weight
from peftune.training.cheap_inputs import Again, origin_of, remember_origins
from peftune.training.dropout import keeping

ADAPTER = "default"
LINEAR = ("Linear", "Linear4bit", "Linear8bitLt")
"""peft's classes for adapted linear layers; some exist only where bitsandbytes is installed."""


def fuse(model: PeftModel, keeps_inputs: bool = False) -> int:
    """Let the plain LoRA layers of `model` compute their update here; how many these are.

    Others (DoRA, embeddings, experts) keep peft's own code, and so does what is saved. `keeps_inputs`:
    even those that could be made again, because the weights of a norm may be in shards by then.
    """
    plain = [module for module in model.modules() if is_plain(module)]
    if plain and not keeps_inputs:
        remember_origins(model)
    again = Again()
    for layer in plain:
        # On the instance: engines and peft keep seeing the module that they know.
        vars(layer)["forward"] = partial(forward, layer, again)
    return len(plain)


def has_fused(model: torch.nn.Module) -> bool:
    """Whether any layer of a model computes its update here."""
    return any(
        "forward" in vars(module) for module in model.modules() if isinstance(module, LoraLayer)
    )


def is_plain(module: torch.nn.Module) -> bool:
    """Whether a module adds B·A·x times a number to what its base layer makes of x, and no more than
    dropout of x before it."""
    if type(module).__name__ not in LINEAR or not isinstance(module, LoraLayer):
        return False
    weights = (module.lora_A[ADAPTER], module.lora_B[ADAPTER])
    return (
        all(type(weight) is torch.nn.Linear and weight.bias is None for weight in weights)
        and isinstance(module.lora_dropout[ADAPTER], (torch.nn.Identity, torch.nn.Dropout))
        and ADAPTER not in module.lora_variant
    )


def forward(layer: Any, again: Again, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of the layer's forward."""
    if layer.disable_adapters or layer.merged or autocast_dtype(x) is not None:
        return type(layer).forward(layer, x, *args, **kwargs)
    base, low, high = (
        layer.base_layer,
        layer.lora_A[ADAPTER].weight,
        layer.lora_B[ADAPTER].weight,
    )
    share = dropped_share(layer.lora_dropout[ADAPTER])
    kept = keeping(x, share) if share else None
    module, source = origin_of(x)
    facts = Facts(base, layer.scaling[ADAPTER], 1.0 / (1.0 - share), again, module)
    if has_dense_weight(base, device_kind(x)):
        return _AdaptedLinear.apply(x, source, low, high, kept, facts)
    return _LowRankUpdate.apply(base(x, *args, **kwargs), x, source, low, high, kept, facts)


def dropped_share(module: torch.nn.Module) -> float:
    """How much of its input a module drops now."""
    return module.p if isinstance(module, torch.nn.Dropout) and module.training else 0.0


class Facts(NamedTuple):
    """What a layer knows besides its tensors."""

    base: torch.nn.Module
    scaling: float
    lift: float
    """What kept numbers are multiplied with where others are dropped."""
    again: Again
    module: torch.nn.Module | None
    """What made the input, where that is computed again instead of kept."""

    def dropped(self, x_TK: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """What dropout leaves of `x_TK`; `kept` has the shape of the layer's input."""
        if kept is None:
            return x_TK
        return torch.where(kept.flatten(0, -2), x_TK * self.lift, 0.0)


class _AdaptedLinear(torch.autograd.Function):
    """x·Wᵀ + b + scaling · x·Aᵀ·Bᵀ for a frozen layer, summed in the dtype of A, rounded to that of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        source: torch.Tensor,
        low_RK: torch.Tensor,
        high_NR: torch.Tensor,
        kept: torch.Tensor | None,
        facts: Facts,
    ) -> torch.Tensor:
        base: Any = facts.base

        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            x_TK = x.flatten(0, -2)
            inner_TR = functional.linear(facts.dropped(_as(x_TK, low_RK), kept), low_RK)
            made_TN = product(x_TK, dense_weight(base, x.dtype), base.bias)
            sum_TN = _as(made_TN, high_NR).addmm_(inner_TR, high_NR.T, alpha=facts.scaling)
            return _as(sum_TN, x).unflatten(0, x.shape[:-1]), inner_TR

        result, inner_TR = remembered(compute)
        ctx.save_for_backward(source, inner_TR, low_RK, high_NR, kept)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[0]
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        facts, grad_TN, saved = ctx.facts, grad.flatten(0, -2), ctx.saved_tensors
        x, grad_TR, grad_low, grad_high = _low_rank_gradients(facts, saved, grad_TN)
        if not ctx.reads:
            return None, None, grad_low, grad_high, None, None
        _, _, low_RK, _, kept = saved
        weight_NK = dense_weight(facts.base, x.dtype)
        grad_TK = _as(product(grad_TN, weight_NK.T), low_RK)
        if kept is None:
            grad_TK = grad_TK.addmm_(grad_TR, low_RK)
        else:
            grad_TK += facts.dropped(grad_TR @ low_RK, kept)
        return _as(grad_TK, x).view_as(x), None, grad_low, grad_high, None, None


class _LowRankUpdate(torch.autograd.Function):
    """result + scaling · B·A·x, computed in the dtype of A and rounded once to that of `result`."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        source: torch.Tensor,
        low_RK: torch.Tensor,
        high_NR: torch.Tensor,
        kept: torch.Tensor | None,
        facts: Facts,
    ) -> torch.Tensor:
        x_TK = facts.dropped(_as(x.flatten(0, -2), low_RK), kept)
        inner_TR = functional.linear(x_TK, low_RK)
        ctx.save_for_backward(source, inner_TR, low_RK, high_NR, kept)
        ctx.facts, ctx.reads = facts, ctx.needs_input_grad[1]
        flat_TN = _as(result.flatten(0, -2), high_NR)
        sum_TN = torch.addmm(flat_TN, inner_TR, high_NR.T, alpha=facts.scaling)
        return _as(sum_TN, result).view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        facts, saved = ctx.facts, ctx.saved_tensors
        x, grad_TR, grad_low, grad_high = _low_rank_gradients(facts, saved, grad.flatten(0, -2))
        grad_x = None
        if ctx.reads:
            _, _, low_RK, _, kept = saved
            grad_x = _as(facts.dropped(grad_TR @ low_RK, kept), x).view_as(x)
        return grad, grad_x, None, grad_low, grad_high, None, None


def _low_rank_gradients(
    facts: Facts, saved: tuple[Any, ...], grad_TN: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The layer's input, and gradients by x·Aᵀ (T, R), by A (R, K) and by B (N, R)."""
    source, inner_TR, low_RK, high_NR, kept = saved
    wide_TN = _as(grad_TN, high_NR)
    x = facts.again.made_by(facts.module, source)
    grad_TR = wide_TN @ high_NR * facts.scaling
    # This way round the product takes half as long.
    grad_high = (inner_TR.T @ wide_TN).mul_(facts.scaling).T.contiguous()
    x_TK = facts.dropped(_as(x.flatten(0, -2), low_RK), kept)
    return x, grad_TR, grad_TR.T @ x_TK, grad_high


def has_dense_weight(base: torch.nn.Module, device: str) -> bool:
    """Whether a frozen layer multiplies with a weight as it is, or dequantized: on GPUs bitsandbytes
    has kernels of its own."""
    if type(base) is torch.nn.Linear:
        return not base.weight.requires_grad
    return device == "cpu" and type(base).__name__ in LAYERS


def dense_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """What inputs of `dtype` are multiplied with, (N, K)."""
    return base.weight if type(base) is torch.nn.Linear else training_weight(base, dtype)


def _as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tensor.to(like.dtype)
