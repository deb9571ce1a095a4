"""Products with quantized weights as the kernels that bitsandbytes makes of them.

To the meta device each is one function, which tells neither operations nor the memory between its parts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def rounded_rows(x_TK: Tensor, threshold: float = 0.0) -> Any:
    """Inputs in 8 bits. Which columns are above the threshold only numbers can say: none are planned."""
    return torch.ops.bitsandbytes.int8_vectorwise_quant.default(x_TK, 0.0)


def product_of_8_bits(
    x_TK: Tensor,
    rounded_TK: Tensor,
    weight_NK: Tensor,
    scales_T: Tensor,
    scales_N: Tensor,
    outliers: Tensor | None = None,
    bias_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Integers first, then scaled (bitsandbytes/backends/default/ops.py, int8_mixed_scaled_mm)."""
    ops = torch.ops.bitsandbytes
    summed_TN = ops.int8_linear_matmul.default(rounded_TK, weight_NK)
    made_TN = ops.int8_mm_dequant.default(summed_TN, scales_T, scales_N, x_TK.dtype, bias_N)
    return made_TN, x_TK.new_empty(0)


def product_of_4_bits(
    x: Tensor,
    packed: Tensor,
    shape_NK: Sequence[int],
    scales: Tensor,
    blocksize: int,
    quant_type: str,
    bias: Tensor | None = None,
    absmax_8bit: Tensor | None = None,
    absmax_code: Tensor | None = None,
    absmax_offset: Tensor | None = None,
) -> Tensor:
    """Unpacked, then multiplied, as for any number of tokens that trains a GPU well: beyond 1,536 always
    (bitsandbytes/backends/cuda/ops.py, gemm_4bit)."""
    ops = torch.ops.bitsandbytes
    if absmax_8bit is not None:
        code = (absmax_8bit, scales, absmax_code, 256, torch.float32)
        scales = ops.dequantize_blockwise.default(*code) + absmax_offset
    unpacked = (packed, scales, blocksize, quant_type, shape_NK, x.dtype)
    return functional.linear(x, ops.dequantize_4bit.default(*unpacked), bias)


PARTS: dict[str, Callable[..., Any]] = {
    "bitsandbytes.gemm_4bit": product_of_4_bits,
    "bitsandbytes.int8_mixed_scaled_mm": product_of_8_bits,
    "bitsandbytes.int8_vectorwise_quant": rounded_rows,
}
"""By the function in whose place they are, as torch writes it; they take what it takes."""
