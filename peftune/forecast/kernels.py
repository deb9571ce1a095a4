"""What torch does on a device and not on the meta device: its kernels, and autocast."""

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from peftune.forecast.packed import PARTS

aten = torch.ops.aten
HALF = (torch.bfloat16, torch.float16)
OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
LARGEST_HEAD = 256
"""Of torch's flash attention on GPUs."""
NARROWED = (
    functional.linear,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__,
    torch.bmm,
    torch.baddbmm,
    torch.addmm,
    torch.einsum,
    functional.scaled_dot_product_attention,
)
"""What autocast computes in half precision on every device (torch.amp's table of functions)."""
WIDENED = (functional.layer_norm, functional.softmax, torch.softmax, functional.log_softmax)
"""What it computes in float32 on GPUs alone."""


class Kernels(TorchFunctionMode):
    """Inside, planned tensors go through the kernels of `kind`, `cpu` or `cuda`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_autocast_enabled("cpu"):
            args, kwargs = self._autocast(function, args, kwargs)
        if function is functional.scaled_dot_product_attention and args[0].is_meta:
            return self._attention(*args, **kwargs)
        if isinstance(function, OPERATORS):
            function = PARTS.get(str(function).removesuffix(".default"), function)
        return function(*args, **kwargs)

    def _autocast(self, function: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if function in NARROWED:
            dtype = torch.get_autocast_dtype("cpu")
        elif function in WIDENED and self.kind == "cuda":
            dtype = torch.float32
        else:
            return args, kwargs
        found: tuple[Any, Any] = tree_map(lambda leaf: _cast(leaf, dtype), (args, kwargs))
        return found

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """torch's choice of a kernel (aten/src/ATen/native/transformers/sdp_utils*.cpp)."""
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # As torch does before any of its kernels.
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
                attn_mask.logical_not(), -torch.inf
            )
        learns_mask = attn_mask is not None and attn_mask.requires_grad
        plain = not (dropout_p or learns_mask) and query.shape[-1] == value.shape[-1]
        if self.kind == "cpu" and plain and all(x.stride(-1) == 1 for x in (query, key, value)):
            made = aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
            )
            return _first(made)
        fits = query.dtype in HALF and attn_mask is None and query.shape[-1] <= LARGEST_HEAD
        if self.kind == "cuda" and plain and fits:
            return _first(
                aten._scaled_dot_product_flash_attention(
                    query, key, value, 0.0, is_causal, False, scale=scale
                )
            )
        if self.kind == "cuda" and plain and not enable_gqa:
            return _first(
                aten._scaled_dot_product_efficient_attention(
                    query, key, value, attn_mask, True, 0.0, is_causal, scale=scale
                )
            )
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )


def _first(made: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return made[0]


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return leaf.to(dtype) if floats and leaf.dtype != torch.float64 else leaf
