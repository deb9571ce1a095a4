"""The low-rank update as one function: its input is kept once, in its own dtype.

peft converts the input to the adapter's dtype anew for each layer, and keeps every copy for the
backward pass. T tokens, K inputs, N outputs, R rank.
"""

from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn import functional

ADAPTER = "default"
LINEAR = ("Linear", "Linear4bit", "Linear8bitLt")
"""peft's classes for adapted linear layers; some exist only where bitsandbytes is installed."""


def fuse(model: PeftModel) -> int:
    """Let the plain LoRA layers of `model` compute their update here; how many these are.

    Others (DoRA, dropout, embeddings, experts) keep peft's own code, and so does what is saved.
    """
    plain = [module for module in model.modules() if is_plain(module)]
    for layer in plain:
        # On the instance: engines and peft keep seeing the module that they know.
        vars(layer)["forward"] = partial(forward, layer)
    return len(plain)


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


def forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of the layer's forward."""
    if layer.disable_adapters or layer.merged or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x, *args, **kwargs)
    result = layer.base_layer(x, *args, **kwargs)
    low, high = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return _LowRankUpdate.apply(result, x, low, high, layer.scaling[ADAPTER])


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
    ) -> torch.Tensor:
        inner_TR = functional.linear(_as(x.flatten(0, -2), low_RK), low_RK)
        ctx.save_for_backward(x, inner_TR, low_RK, high_NR)
        ctx.scaling = scaling
        flat_TN = _as(result.flatten(0, -2), high_NR)
        sum_TN = torch.addmm(flat_TN, inner_TR, high_NR.T, alpha=scaling)
        return _as(sum_TN, result).view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inner_TR, low_RK, high_NR = ctx.saved_tensors
        grad_TN = _as(grad.flatten(0, -2), high_NR)
        grad_TR = grad_TN @ high_NR * ctx.scaling
        grad_high = (grad_TN.T @ inner_TR).mul_(ctx.scaling)
        grad_low = grad_TR.T @ _as(x.flatten(0, -2), low_RK)
        grad_x = _as(grad_TR @ low_RK, x).view_as(x) if ctx.needs_input_grad[1] else None
        return grad, grad_x, grad_low, grad_high, None


def _as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tensor.to(like.dtype)
