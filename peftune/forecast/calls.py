"""One computation of a trace: which function, on what shapes, and what it takes."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
CPU_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION = {
    CPU_ATTENTION: 2,
    aten._scaled_dot_product_flash_attention: 2,
    aten._scaled_dot_product_efficient_attention: 2,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: 5,
    aten._scaled_dot_product_flash_attention_backward: 5,
    aten._scaled_dot_product_efficient_attention_backward: 5,
}
"""Kernels of attention, and how many products of tokens × tokens × size each has."""
IN_PLACE = {aten.addmm_: aten.addmm}
"""Products that torch counts the operations of under another name."""
EIGHT_BITS = "bitsandbytes::int8_linear_matmul"
"""A product whose operations torch does not know."""


class Shape(NamedTuple):
    """A tensor without its numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.sizes) * self.dtype.itemsize


class Call(NamedTuple):
    """A function with everything that decides how long it takes."""

    function: Any
    arguments: str
    """For telling calls apart."""
    flops: float
    """Floating-point operations of products; 0 for everything else."""
    bytes: float
    """Read and written."""
    dtype: torch.dtype


class Asking(TorchFunctionMode):
    """Counts the functions of torch that Python asks for inside, those too that compute nothing; not
    what these ask for themselves."""

    count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # Reading an attribute is no work.
        self.count += function.__name__ != "__get__"
        return function(*args, **(kwargs or {}))


@contextmanager
def counted_modules() -> Iterator[Counter[type]]:
    """How often modules of each class are called inside."""
    found = Counter[type]()
    hook = register_module_forward_pre_hook(lambda module, _: found.update((type(module),)))
    try:
        yield found
    finally:
        hook.remove()


ARGUMENTS: dict[str, tuple[Any, Any]] = {}
"""By the text in a Call: its arguments, with a Shape for each tensor."""


def call_of(function: Any, args: Any, kwargs: dict[str, Any], made: Sequence[torch.Tensor]) -> Call:
    """What a call that made these tensors costs."""
    shapes = tree_map(_shape, (args, kwargs))
    text = f"{function}{shapes}"
    ARGUMENTS.setdefault(text, shapes)
    read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    moved = sum(tensor.numel() * tensor.dtype.itemsize for tensor in (*read, *made))
    return Call(function, text, _flops(function, args, kwargs, made), moved, made[0].dtype)


def _shape(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return Shape(tuple(leaf.shape), tuple(leaf.stride()), leaf.dtype)
    return leaf


def _flops(function: Any, args: Any, kwargs: Any, made: Sequence[torch.Tensor]) -> float:
    packet = function.overloadpacket if isinstance(function, torch._ops.OpOverload) else function
    if packet in ATTENTION:
        # A backward kernel gets the gradient before the queries.
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        query, key = tensors[1:3] if ATTENTION[packet] == 5 else tensors[:2]
        causal = any(arg is True for arg in args) or kwargs.get("is_causal", False)
        pairs = query.shape[-2] * key.shape[-2] * (0.5 if causal else 1.0)
        return 2.0 * ATTENTION[packet] * math.prod(query.shape[:-2]) * query.shape[-1] * pairs
    packet = IN_PLACE.get(packet, packet)
    if packet in flop_registry:
        out = made[0] if len(made) == 1 else tuple(made)
        return float(flop_registry[packet](*args, **kwargs, out_val=out))
    if function.name() == EIGHT_BITS:
        return 2.0 * made[0].numel() * int(args[0].shape[-1])
    return 0.0
