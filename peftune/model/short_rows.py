"""Short rows of like length, side by side for a few products: a kernel for each costs more than they do.

Rows of 20 tokens take a kernel less time than its start. The heads of their tokens are moved to a place
for each bucket of rows, padded to its longest, and what is computed there is moved back.
"""

import math
import operator
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from peftune.model.documents import Documents

WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Rows between two of these share a bucket; longer ones have work enough for a kernel of their own."""
MOST_SCORES = 2**20
"""Of all rows and heads of a bucket, so that a processor's cache holds what is made of them."""


@dataclass(frozen=True)
class Side:
    """Where the heads of one side's tokens, queries or keys, stand in their buckets, bucket by bucket in
    the order (rows, heads, width)."""

    shapes: tuple[tuple[int, int, int], ...]
    """Rows, heads and width of each bucket."""
    there: torch.Tensor
    """The token's head at each place, int32 (places,); at padding that of the first token."""
    back: torch.Tensor
    """The place of each token's heads, int32 (tokens of these rows · heads,)."""
    padding: torch.Tensor
    """The places of padding, int64."""
    valid: tuple[torch.Tensor, ...]
    """Where tokens stand, bool (rows, width) of each bucket."""
    tokens: torch.Tensor | None
    """Which tokens these are, int64, where others stand between them."""
    all_tokens: int
    """How many there are with those."""

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, own heads, size) as (places, size): keys that several heads share are repeated."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.there)

    def restore(self, placed: torch.Tensor, own_heads: int) -> torch.Tensor:
        """The opposite, with zeros for tokens of other rows; what came of repeated keys is summed."""
        moved = placed.index_select(0, self.back)
        heads = self.shapes[0][1]
        apart = moved.view(-1, own_heads, heads // own_heads, placed.shape[-1])
        own = apart[:, :, 0] if own_heads == heads else apart.sum(dim=2)
        if self.tokens is None:
            return own
        return own.new_zeros(self.all_tokens, *own.shape[1:]).index_copy_(0, self.tokens, own)

    def split(self, placed: torch.Tensor) -> list[torch.Tensor]:
        """(places, size) as (rows · heads, width, size) of each bucket."""
        parts = placed.split([rows * heads * width for rows, heads, width in self.shapes])
        return [
            part.view(rows * heads, width, -1)
            for part, (rows, heads, width) in zip(parts, self.shapes, strict=True)
        ]


@dataclass
class Buckets:
    """Rows, with what they look at, in buckets."""

    own: Side
    seen: Side
    others: tuple[int, ...]
    """Which rows are in none: a longer one needs more memory here than in a kernel."""
    masked: tuple[tuple[Any, ...], list[torch.Tensor | None]] | None = field(
        default=None, init=False
    )
    """The last masks and what they were made of, which most layers share."""

    def masks(
        self, bias: torch.Tensor | None, causal: bool, dtype: torch.dtype
    ) -> list[torch.Tensor | None]:
        """What each bucket adds to its scores, broadcast to (rows, heads, width, width), if anything."""
        made_of = bias, causal, dtype
        # A mask that is held is another one than any that is made now.
        held = () if self.masked is None else self.masked[0]
        if self.masked is None or not all(map(operator.is_, held, made_of)):
            buckets = range(len(self.own.shapes))
            self.masked = made_of, [self._mask(index, *made_of) for index in buckets]
        return self.masked[1]

    def _mask(
        self, index: int, bias: torch.Tensor | None, causal: bool, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """Padding is not looked at. It looks at something itself, or its scores would all be infinite."""
        own, seen = self.own.valid[index], self.seen.valid[index]
        if causal:
            # No token looks at what comes after it, and that is where padding stands.
            visible = torch.ones(own.shape[1], seen.shape[1], dtype=torch.bool, device=own.device)
            return _added(visible.tril(), dtype)
        looks, looked_at = own[:, None, :, None], seen[:, None, None, :]
        part = None if bias is None else bias[..., : own.shape[1], : seen.shape[1]]
        if looks.all() and looked_at.all():
            return None if part is None else _added(part, dtype)
        if part is None:
            return _added(looked_at, dtype)
        if part.dtype == torch.bool:
            return _added(part & looked_at | ~looks, dtype)
        return part.masked_fill(~looks, 0.0).masked_fill(looks & ~looked_at, -torch.inf)


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores; `mask` may be that already, or tell where they count."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


def buckets_of(own: Documents, seen: Documents, heads: int, key_heads: int) -> Buckets | None:
    """The rows in buckets, where that at least halves the number of calls."""
    together, others = defaultdict(list), []
    for row, pair in enumerate(zip(own.lengths, seen.lengths, strict=True)):
        if max(pair) > WIDTHS[-1]:
            others.append(row)
        else:
            together[tuple(bisect_left(WIDTHS, length) for length in pair)].append(row)
    count = len(own.lengths) - len(others)
    if not count or 2 * len(together) > count:
        return None
    lengths = np.array([own.lengths, seen.lengths])
    rows = [part for one in together.values() for part in _bounded(one, lengths, heads)]
    device = own.places.device
    side = side_of(lengths[0], rows, heads, heads, device)
    same = seen is own and key_heads == heads
    other = side if same else side_of(lengths[1], rows, heads, key_heads, device)
    return Buckets(side, other, tuple(others))


def _bounded(rows: list[int], lengths: Any, heads: int) -> Iterator[list[int]]:
    """The rows of a bucket, not too many at once; `lengths` are those of both sides, (2, rows)."""
    most = max(1, MOST_SCORES // (heads * math.prod(lengths[:, rows].max(axis=1).tolist())))
    yield from (rows[first : first + most] for first in range(0, len(rows), most))


def side_of(
    lengths: Any, buckets: list[list[int]], heads: int, own_heads: int, device: torch.device
) -> Side:
    """The places of the tokens of rows in buckets, bucket by bucket and row by row, where all rows have
    these lengths; each of `own_heads` serves as many of the `heads`."""
    starts = np.cumsum(lengths) - lengths
    head = np.arange(heads) // (heads // own_heads)
    there, padding, valid, first = [], [], [], 0
    back = np.full((lengths.sum(), heads), -1, dtype=np.int32)
    for rows in buckets:
        steps = np.arange(lengths[rows].max())
        taken = steps < lengths[rows, None]
        tokens = np.where(taken, starts[rows, None] + steps, 0)
        there.append((tokens[:, None] * own_heads + head[:, None]).ravel())
        places = first + np.arange(there[-1].size).reshape(len(rows), heads, -1).transpose(0, 2, 1)
        back[tokens[taken]] = places[taken]
        padding.append(places[~taken].ravel())
        valid.append(taken)
        first += places.size

    def moved(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    present = back[:, 0] >= 0
    return Side(
        shapes=tuple((len(taken), heads, taken.shape[1]) for taken in valid),
        there=moved(np.concatenate(there, dtype=np.int32)),
        back=moved(back[present].ravel()),
        padding=moved(np.concatenate(padding)),
        valid=tuple(map(moved, valid)),
        tokens=None if present.all() else moved(present.nonzero()[0]),
        all_tokens=len(present),
    )
