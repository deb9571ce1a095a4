"""Attention of rows that stand one after another: each looks at itself alone, without a mask for all.

It enters transformers by its own interfaces, so a model's code is used as it is. Outside of layers
without padding (generation, a model that is not served) everything is torch's own attention as before.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sdpa_mask,
)

from peftune.model.devices import device_kind
from peftune.model.documents import FIRST_TOKENS, Reading, current_reading
from peftune.model.first_tokens import every_token
from peftune.model.frozen_products import product_dtype
from peftune.model.row_bias import RowBias
from peftune.model.short_attention import attend_short
from peftune.model.short_rows import WIDTHS, Buckets, buckets_of
from peftune.model.unequal_rows import all_rows_at_once, has_kernel

UNPADDED = "peftune_unpadded"
"""Its name among the attention implementations of transformers."""
LONGEST_WIDE = 512
"""Tokens of a row in bfloat16 whose attention is computed in float32 on a CPU."""


def register() -> None:
    """Make it known to transformers."""
    AttentionInterface.register(UNPADDED, attend)
    AttentionMaskInterface.register(UNPADDED, shared_mask)


def shared_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> torch.Tensor | None:
    """One mask for all rows, bool (1, 1, width, width), or None where causality or nothing is masked.

    All rows begin at position 0, so windows and chunks mask the same places in each of them.
    """
    arguments = {"mask_function": mask_function, "device": device, **kwargs}
    if current_reading() is None:
        return sdpa_mask(
            batch_size, q_length, kv_length, attention_mask=attention_mask, **arguments
        )
    if mask_function in (causal_mask_function, bidirectional_mask_function):
        return None
    never = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask = sdpa_mask(1, q_length, kv_length, **{**arguments, **never})
    assert mask is not None
    # A window that is wider than every row masks nothing more than causality, or nothing.
    return None if mask.all() or torch.equal(mask, torch.ones_like(mask).tril()) else mask


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of queries (1, heads, tokens, size) to the keys of their row: (1, tokens, heads, size).

    `position_bias` is added to the scores, (1, heads, width, width), the same for all rows.
    """
    reading = current_reading()
    if reading is None or reading.stack is None:
        own = (attention_mask, dropout, scaling, is_causal, position_bias)
        return sdpa_attention_forward(module, query, key, value, *own, **kwargs)
    if reading.stack == FIRST_TOKENS:
        key, value = (every_token(reading, *one) for one in (("k", key), ("v", value)))
    causal = bool(vars(module).get("is_causal", True) if is_causal is None else is_causal)
    row_bias = bias_now(reading)
    bias = row_bias.read(attention_mask, position_bias, causal)
    if bias is None and not dropout and has_kernel(query, value):
        return all_rows_at_once(reading, query, key, value, causal, scaling), None
    alone = causal and bias is None
    learns = dropout or (bias is not None and bias.requires_grad)
    buckets = None if learns else buckets_now(reading, query.shape[1], key.shape[1])
    if buckets is not None:
        return in_buckets(buckets, reading, query, key, value, row_bias, alone, scaling), None
    dtype = kernel_dtype(query, max(reading.documents[reading.stack].lengths))
    q, k, v = (one.to(dtype) for one in (query, key, value))
    rows = row_by_row(reading, q, k, v, row_bias, alone, dropout, scaling)
    return torch.cat([row.transpose(1, 2) for row in rows], dim=1).to(query.dtype), None


def buckets_now(reading: Reading, heads: int, key_heads: int) -> Buckets | None:
    """Short rows side by side; the same for every layer."""
    own, seen = reading.own, reading.seen
    assert own is not None
    key = id(own), id(seen), heads, key_heads
    if key not in reading.buckets:
        reading.buckets[key] = buckets_of(own, seen, heads, key_heads)
    return reading.buckets[key]


def bias_now(reading: Reading) -> RowBias:
    """What is added to scores; layers of the same kind are given the same."""
    key = id(reading.own), id(reading.seen)
    return reading.biases.setdefault(key, RowBias())


def in_buckets(
    buckets: Buckets,
    reading: Reading,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: RowBias,
    causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """Short rows side by side, and each of the others by a kernel: (1, tokens, heads, size)."""
    made = attend_short(buckets, query, key, value, bias.whole, causal, scaling)
    if not buckets.others:
        return made
    assert reading.own is not None
    parts = [*made.split(reading.own.lengths, dim=1)]
    rows = [*rows_of(reading, query, key, value)]
    for row in buckets.others:
        # Copies, or what the kernel keeps of this row would hold those of all rows.
        q, k, v = (one.clone() for one in rows[row])
        parts[row] = of_one_row(q, k, v, bias, causal, 0.0, scaling).transpose(1, 2)
    return torch.cat(parts, dim=1)


def rows_of(
    reading: Reading, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Queries, keys and values of each row, (1, heads, its tokens, size)."""
    assert reading.own is not None
    own, seen = reading.own.lengths, reading.seen.lengths
    sides = (query.split(own, dim=2), key.split(seen, dim=2), value.split(seen, dim=2))
    return zip(*sides, strict=True)


def row_by_row(
    reading: Reading,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: RowBias,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> list[torch.Tensor]:
    """What each row attends to, (1, heads, its tokens, size)."""
    rows = []
    shares = rows_of(reading, query, key, value)
    for reading.row, (q, k, v) in enumerate(shares):
        rows.append(of_one_row(q, k, v, bias, causal, dropout, scaling))
    reading.row = None
    return rows


def of_one_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: RowBias,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """What a row attends to, (1, heads, its tokens, size)."""
    mask = bias.part(query.shape[2], key.shape[2])
    return attention(query, key, value, mask, causal, dropout, scaling)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> torch.Tensor:
    """torch's own, (rows, heads, tokens, size)."""
    dtype = kernel_dtype(query, query.shape[2])
    made = functional.scaled_dot_product_attention(
        query.to(dtype),
        key.to(dtype),
        value.to(dtype),
        attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.to(dtype),
        dropout_p=dropout,
        is_causal=causal,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return made.to(query.dtype)


def kernel_dtype(query: torch.Tensor, tokens: int) -> torch.dtype:
    """The number format in which torch's kernel is fastest for rows of up to so many tokens, and no less
    exact.

    On a CPU its backward pass in bfloat16 takes up to six times as long as in float32, and code is
    compiled for every new length; only long rows are worth that. Rows that buckets take are computed in
    float32 on every device, in buckets or alone, which follows from the others of their batch.
    """
    widest = LONGEST_WIDE if device_kind(query) == "cpu" else WIDTHS[-1]
    half = query.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if half and tokens <= widest else product_dtype(query)
