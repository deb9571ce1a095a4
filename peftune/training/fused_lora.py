"""An adapted linear layer as one function: its input is kept once, in its own dtype.

peft converts the input to the adapter's dtype anew for each layer, and keeps every copy for the
backward pass; it adds what the adapter makes to what the layer makes in memory of its own, and autograd
adds their gradients in more. T tokens, K inputs, N outputs, R rank.
"""

from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional

from peftune.model.remembering import remembered
from peftune.model.wide_products import product_dtype
from peftune.quantization import LAYERS, training_weight
from peftune.training.cheap_inputs import Again, origin_of, remember_origins

ADAPTER = "default"
LINEAR = ("Linear", "Linear4bit", "Linear8bitLt")
"""peft's classes for adapted linear layers; some exist only where bitsandbytes is installed."""


def fuse(model: PeftModel) -> int:
    """Let the plain LoRA layers of `model` compute their update here; how many these are.

    Others (DoRA, dropout, embeddings, experts) keep peft's own code, and so does what is saved.
    """
    plain = [module for module in model.modules() if is_plain(module)]
    if plain:
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
    """Whether a module adds B·A·x times a number to what its base layer makes of x, and no more."""
    if type(module).__name__ not in LINEAR or not isinstance(module, LoraLayer):
        return False
    weights = (module.lora_A[ADAPTER], module.lora_B[ADAPTER])
    return (
        all(type(weight) is torch.nn.Linear and weight.bias is None for weight in weights)
        and isinstance(module.lora_dropout[ADAPTER], torch.nn.Identity)
        and ADAPTER not in module.lora_variant
    )


def forward(layer: Any, again: Again, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of the layer's forward."""
    if layer.disable_adapters or layer.merged or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x, *args, **kwargs)
    base, scaling = layer.base_layer, layer.scaling[ADAPTER]
    low, high = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    if has_dense_weight(base, x.device):
        return _AdaptedLinear.apply(x, low, high, base, scaling, again)
    return _LowRankUpdate.apply(base(x, *args, **kwargs), x, low, high, scaling, again)


class _AdaptedLinear(torch.autograd.Function):
    """x·Wᵀ + b + scaling · x·Aᵀ·Bᵀ for a frozen layer, summed in the dtype of A, rounded to that of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        low_RK: torch.Tensor,
        high_NR: torch.Tensor,
        base: torch.nn.Linear,
        scaling: float,
        again: Again,
    ) -> torch.Tensor:
        def compute() -> tuple[torch.Tensor, torch.Tensor]:
            x_TK, weight_NK = x.flatten(0, -2), dense_weight(base, x.dtype)
            inner_TR = functional.linear(_as(x_TK, low_RK), low_RK)
            bias_N = None if base.bias is None else _as(base.bias, weight_NK)
            made_TN = functional.linear(_as(x_TK, weight_NK), weight_NK, bias_N)
            sum_TN = _as(made_TN, high_NR).addmm_(inner_TR, high_NR.T, alpha=scaling)
            return _as(sum_TN, x).unflatten(0, x.shape[:-1]), inner_TR

        result, inner_TR = remembered(compute)
        _keep(ctx, x, inner_TR, low_RK, high_NR, scaling, again)
        ctx.base = base
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        source, inner_TR, low_RK, high_NR = ctx.saved_tensors
        x = ctx.again.made_by(ctx.module, source)
        grad_TN = grad.flatten(0, -2)
        grad_TR, grad_low, grad_high = _low_rank_gradients(ctx, grad_TN, x, inner_TR, high_NR)
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight_NK = dense_weight(ctx.base, x.dtype)
            grad_TK = _as(_as(grad_TN, weight_NK) @ weight_NK, low_RK).addmm_(grad_TR, low_RK)
            grad_x = _as(grad_TK, x).view_as(x)
        return grad_x, grad_low, grad_high, None, None, None


class _LowRankUpdate(torch.autograd.Function):
    """result + scaling · B·A·x, computed in the dtype of A and rounded once to that of `result`."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        low_RK: torch.Tensor,
        high_NR: torch.Tensor,
        scaling: float,
        again: Again,
    ) -> torch.Tensor:
        inner_TR = functional.linear(_as(x.flatten(0, -2), low_RK), low_RK)
        _keep(ctx, x, inner_TR, low_RK, high_NR, scaling, again)
        flat_TN = _as(result.flatten(0, -2), high_NR)
        sum_TN = torch.addmm(flat_TN, inner_TR, high_NR.T, alpha=scaling)
        return _as(sum_TN, result).view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        source, inner_TR, low_RK, high_NR = ctx.saved_tensors
        x = ctx.again.made_by(ctx.module, source)
        grad_TN = grad.flatten(0, -2)
        grad_TR, grad_low, grad_high = _low_rank_gradients(ctx, grad_TN, x, inner_TR, high_NR)
        grad_x = _as(grad_TR @ low_RK, x).view_as(x) if ctx.needs_input_grad[1] else None
        return grad, grad_x, grad_low, grad_high, None, None


def _keep(
    ctx: Any,
    x: torch.Tensor,
    inner_TR: torch.Tensor,
    low_RK: torch.Tensor,
    high_NR: torch.Tensor,
    scaling: float,
    again: Again,
) -> None:
    """What the backward pass reads: of a cheap input, what it was made from."""
    ctx.module, source = origin_of(x)
    ctx.save_for_backward(source, inner_TR, low_RK, high_NR)
    ctx.scaling, ctx.again = scaling, again


def _low_rank_gradients(
    ctx: Any,
    grad_TN: torch.Tensor,
    x: torch.Tensor,
    inner_TR: torch.Tensor,
    high_NR: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by x·Aᵀ (T, R), by A (R, K) and by B (N, R)."""
    wide_TN = _as(grad_TN, high_NR)
    grad_TR = wide_TN @ high_NR * ctx.scaling
    grad_high = (wide_TN.T @ inner_TR).mul_(ctx.scaling)
    return grad_TR, grad_TR.T @ _as(x.flatten(0, -2), high_NR), grad_high


def has_dense_weight(base: torch.nn.Module, device: torch.device) -> bool:
    """Whether a frozen layer multiplies with a weight as it is, or dequantized: on GPUs bitsandbytes
    has kernels of its own."""
    if type(base) is torch.nn.Linear:
        return not base.weight.requires_grad
    return device.type == "cpu" and type(base).__name__ in LAYERS


def dense_weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """What inputs of `dtype` are multiplied with, (N, K), in the format of the products."""
    weight = base.weight if type(base) is torch.nn.Linear else training_weight(base, dtype)
    return weight.to(product_dtype(weight))


def _as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tensor.to(like.dtype)
