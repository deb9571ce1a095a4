"""Attention of short rows: a handful of products for all rows and heads of a bucket.

W and U are the widths of a bucket's queries and keys, B its rows times heads, D the size of a head.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from peftune.model.devices import without_autocast
from peftune.model.short_rows import Buckets


def attend_short(
    buckets: Buckets,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of queries (1, heads, tokens, size) to the keys of their row: (1, tokens, heads, size).

    `bias` is added to the scores, or tells where they count, (1, heads or 1, width, width); it learns
    nothing. Computed in float32, or in what is wider, and rounded once.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    masks = buckets.masks(bias, causal, _wide(query))
    made: torch.Tensor = _ShortRows.apply(query, key, value, masks, buckets, scaling)
    return made[None]


class _Bucket(NamedTuple):
    """What stands in one bucket: scaled queries (B, W, D), keys and values (B, U, D), and what comes of
    the queries, (B, W, D)."""

    shape: tuple[int, int, int]
    mask: torch.Tensor | None
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    made: torch.Tensor

    def weights(self) -> torch.Tensor:
        """How much each query looks at each key, (B, W, U)."""
        scores = torch.bmm(self.query, self.key.mT)
        if self.mask is not None:
            scores.unflatten(0, self.shape[:2]).add_(self.mask)
        return torch.softmax(scores, dim=-1)

    def attend(self) -> torch.Tensor | None:
        """Fill `made`; the weights, where those are less than queries, keys and values."""
        weights = self.weights()
        torch.bmm(weights, self.value, out=self.made)
        read = self.query.numel() + self.key.numel() + self.value.numel()
        return weights if weights.numel() <= read else None

    def differentiate(self, learnt: "_Bucket", weights: torch.Tensor) -> None:
        """Fill the places of `learnt` with gradients; `made` is those by what came of the queries."""
        torch.bmm(weights.mT, self.made, out=learnt.value)
        by_weights = torch.bmm(self.made, self.value.mT)
        by_scores = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        torch.bmm(by_scores, self.key, out=learnt.query)
        torch.bmm(by_scores.mT, self.query, out=learnt.key)


class _ShortRows(torch.autograd.Function):
    """softmax(scaling · Q·Kᵀ + mask)·V; the softmax is kept for the backward pass where that is less to
    keep than Q, K and V are, and computed again where it is more."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        masks: list[torch.Tensor | None],
        buckets: Buckets,
        scaling: float,
    ) -> torch.Tensor:
        own, seen, dtype = buckets.own, buckets.seen, _wide(query)
        q = own.gather(_by_token(query)).to(dtype).mul_(scaling)
        k, v = (seen.gather(_by_token(one)).to(dtype) for one in (key, value))
        made = q.new_empty(len(q), v.shape[-1])
        with without_autocast(q):
            kept = [bucket.attend() for bucket in _each(buckets, masks, q, k, v, made)]
        ctx.save_for_backward(q, k, v, *kept)
        ctx.rest = masks, buckets, scaling, query.dtype, query.shape[1], key.shape[1]
        return own.restore(made, query.shape[1]).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        masks, buckets, scaling, dtype, heads, key_heads = ctx.rest
        slope = buckets.own.gather(grad).to(q.dtype).index_fill_(0, buckets.own.padding, 0.0)
        grads = [torch.empty_like(one) for one in (q, k, v)]
        with without_autocast(q):
            given, found = (_each(buckets, masks, *one, slope) for one in ((q, k, v), grads))
            for one, learnt, weights in zip(given, found, kept, strict=True):
                one.differentiate(learnt, one.weights() if weights is None else weights)
        grads[0].mul_(scaling)
        sides = ((buckets.own, heads), (buckets.seen, key_heads), (buckets.seen, key_heads))
        by_token = [side.restore(one, n) for one, (side, n) in zip(grads, sides, strict=True)]
        return *(one.to(dtype).transpose(0, 1)[None] for one in by_token), None, None, None


def _each(
    buckets: Buckets, masks: list[torch.Tensor | None], *placed: torch.Tensor
) -> Iterator[_Bucket]:
    """Queries, keys, values and what comes of queries, (places, size) each, bucket by bucket."""
    q, k, v, made = placed
    sides = (buckets.own.split(q), buckets.seen.split(k), buckets.seen.split(v))
    parts = zip(*sides, buckets.own.split(made), strict=True)
    for shape, mask, part in zip(buckets.own.shapes, masks, parts, strict=True):
        yield _Bucket(shape, mask, *part)


def _by_token(x: torch.Tensor) -> torch.Tensor:
    """(1, heads, tokens, size) as (tokens, heads, size)."""
    return x[0].transpose(0, 1)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
