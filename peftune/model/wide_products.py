"""bfloat16 layers on processors that compute bfloat16 in software: their products in float32."""

from functools import partial
from typing import Any

import torch
from torch.nn import functional

from peftune.model.devices import autocast_dtype, device_kind

WITHOUT_BFLOAT16 = "AVX2"
"""What torch calls x86 processors without AVX-512, none of which multiplies bfloat16."""


def widen(model: torch.nn.Module) -> int:
    """Let the frozen bfloat16 linear layers of a model on such a CPU multiply in float32; their number.

    Sums of bfloat16 products are float32 anywhere, and the result is rounded to bfloat16 once, as by
    a kernel for bfloat16; only the memory for one widened weight at a time is added.
    """
    narrow: list[Any] = [module for module in model.modules() if is_narrow(module)]
    for layer in narrow:
        # On the instance: adapters and engines keep seeing the module that they know.
        vars(layer)["forward"] = partial(forward, layer)
    return len(narrow)


def is_narrow(module: torch.nn.Module) -> bool:
    """Whether a layer is frozen and its products had better be wider than its weights."""
    return (
        type(module) is torch.nn.Linear
        and product_dtype(module.weight) is not module.weight.dtype
        and not any(parameter.requires_grad for parameter in module.parameters())
    )


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The number format in which products with `tensor` are fastest without being less exact."""
    slow = (
        tensor.dtype is torch.bfloat16
        and device_kind(tensor) == "cpu"
        and torch.backends.cpu.get_cpu_capability() == WITHOUT_BFLOAT16
    )
    return torch.float32 if slow else tensor.dtype


def forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """In place of the layer's forward."""
    if x.dtype is not torch.bfloat16 or autocast_dtype(x) is not None:
        return torch.nn.Linear.forward(layer, x)
    return _WideLinear.apply(x, layer.weight, layer.bias)


class _WideLinear(torch.autograd.Function):
    """A frozen linear layer whose products are float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        wide = None if bias is None else bias.float()
        return functional.linear(x.float(), weight.float(), wide).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return (grad.float() @ weight.float()).to(grad.dtype), None, None
