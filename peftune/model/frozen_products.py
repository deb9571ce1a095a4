"""Products with frozen weights in bfloat16 on CPUs: in float32 where the processor computes bfloat16 in
software, and in few shapes where it has units for it. T tokens, K inputs, N outputs.
"""

from functools import partial
from typing import Any

import torch
from torch.nn import functional

from peftune.model.devices import autocast_dtype, device_kind

WITHOUT_BFLOAT16 = "AVX2"
"""What torch calls x86 processors without AVX-512, none of which multiplies bfloat16."""
SHAPES = 4
"""Numbers of tokens between one power of two and the next for which there is code."""
LEAST_STEP = 16


def serve(model: torch.nn.Module) -> int:
    """Let the frozen bfloat16 linear layers of a model on a CPU multiply as `product` does; their number.

    Sums of bfloat16 products are float32 anywhere, and the result is rounded to bfloat16 once, as by
    a kernel for bfloat16; only the memory for one widened weight at a time is added.
    """
    served: list[Any] = [module for module in model.modules() if is_served(module)]
    for layer in served:
        # On the instance: adapters and engines keep seeing the module that they know.
        vars(layer)["forward"] = partial(forward, layer)
    return len(served)


def is_served(module: torch.nn.Module) -> bool:
    """Whether a layer is frozen and its products can be chosen."""
    return (
        type(module) is torch.nn.Linear
        and is_narrow(module.weight)
        and not any(parameter.requires_grad for parameter in module.parameters())
    )


def is_narrow(tensor: torch.Tensor) -> bool:
    """Whether it is bfloat16 on a CPU."""
    return tensor.dtype is torch.bfloat16 and device_kind(tensor) == "cpu"


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The number format in which products with `tensor` are fastest without being less exact."""
    slow = is_narrow(tensor) and torch.backends.cpu.get_cpu_capability() == WITHOUT_BFLOAT16
    return torch.float32 if slow else tensor.dtype


def product(
    x_TK: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None
) -> torch.Tensor:
    """x·Wᵀ + b, (T, N), in the format in which W is multiplied.

    oneDNN compiles code for every new number of rows of a bfloat16 product, which takes many times as
    long as the product, and every step has a number of tokens of its own; empty rows make it one of few.
    """
    dtype = product_dtype(weight_NK)
    read_TK, weight_NK = x_TK.to(dtype), weight_NK.to(dtype)
    bias_N = None if bias_N is None else bias_N.to(dtype)
    tokens = len(x_TK)
    rows = common_rows(tokens) if is_narrow(read_TK) else tokens
    if rows > tokens:
        padded = read_TK.new_empty(rows, read_TK.shape[1])
        padded[:tokens], padded[tokens:] = read_TK, 0.0
        read_TK = padded
    return functional.linear(read_TK, weight_NK, bias_N)[:tokens]


def common_rows(tokens: int) -> int:
    """The next larger number of rows for which there is code."""
    step = step_of(tokens)
    return -(-tokens // step) * step


def fewer_common_rows(tokens: int) -> int:
    """The next smaller one, if there is any."""
    return tokens - tokens % step_of(tokens) or tokens


def step_of(tokens: int) -> int:
    """What a number of rows near `tokens` is a multiple of."""
    return max(LEAST_STEP, 2 ** (tokens.bit_length() - 1) // SHAPES)


def forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """In place of the layer's forward."""
    if x.dtype is not torch.bfloat16 or autocast_dtype(x) is not None:
        return torch.nn.Linear.forward(layer, x)
    return _FrozenLinear.apply(x, layer.weight, layer.bias)


class _FrozenLinear(torch.autograd.Function):
    """A frozen linear layer whose input and output are bfloat16."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        made = product(x.flatten(0, -2), weight, bias)
        return made.to(x.dtype).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        made = product(grad.flatten(0, -2), weight.T)
        return made.to(grad.dtype).unflatten(0, grad.shape[:-1]), None, None
