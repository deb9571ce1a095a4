"""Which tokens of a padded batch belong to which row, for code that computes rows without padding."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional

from peftune.model.row_bias import RowBias

FIRST_TOKENS = 2
"""Which documents of a reading the first tokens of texts are, where a layer computes them alone."""


@dataclass(frozen=True)
class Documents:
    """Rows that were padded on the right, seen one after another."""

    lengths: tuple[int, ...]
    """Tokens of each row; at least one."""
    width: int
    """Tokens of a row with its padding."""
    places: torch.Tensor
    """Where each token stands in the flattened batch, int64 (tokens,)."""
    rows: torch.Tensor
    """Each token's row, int64 (tokens,)."""
    positions: torch.Tensor
    """Each token's place in its row, int64 (tokens,)."""

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where each row begins, and the end, int32 (rows + 1,)."""
        ends = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
        return ends.to(self.places.device)

    @cached_property
    def first_tokens(self) -> "Documents":
        """Of each row the first token alone."""
        rows = torch.arange(len(self.lengths), device=self.places.device)
        ones, zeros = (1,) * len(rows), torch.zeros_like(rows)
        return Documents(ones, self.width, rows * self.width, rows, zeros)

    @property
    def is_full(self) -> bool:
        """Whether there is no padding: rows of one length need no copy."""
        return len(self.places) == len(self.lengths) * self.width

    def unpadded(self, padded: torch.Tensor) -> torch.Tensor:
        """(rows, width, …), or one row for all, (1, width, …), without padding: (1, tokens, …)."""
        if padded.shape[0] == 1 and len(self.lengths) > 1:
            return padded[:, self.positions]
        if self.is_full:
            return padded.flatten(0, 1)[None]
        return padded.flatten(0, 1).index_select(0, self.places)[None]

    def padded(self, tokens: torch.Tensor) -> torch.Tensor:
        """(1, tokens, …) with zeros for padding: (rows, width, …)."""
        if self.is_full:
            return tokens[0].unflatten(0, (-1, self.width))
        rows = tokens[0].split(self.lengths)
        after = [(0, 0) * (row.dim() - 1) + (0, self.width - len(row)) for row in rows]
        return torch.stack([functional.pad(*one) for one in zip(rows, after, strict=True)])


def documents_of(mask: torch.Tensor) -> Documents:
    """The rows of an attention mask, (rows, width), 1 for each token and then 0 for padding."""
    counts = mask.sum(dim=1)
    places = mask.flatten().nonzero()[:, 0]
    width = mask.shape[1]
    return Documents(
        tuple(counts.tolist()), width, places, places // width, places.remainder(width)
    )


@dataclass
class Reading:
    """A forward pass over a padded batch, and what is being computed in it."""

    documents: tuple[Documents, ...]
    """Of the encoder, or of the only stack of layers; of the decoder; and, in a layer that computes
    nothing else, of first tokens."""
    stack: int | None = None
    """Whose layers are being computed; None between them, where rows are padded."""
    states: torch.Tensor | None = None
    """What attention reads that is not of its own rows, (1, tokens, …), such as the encoder's."""
    reads_states: bool = False
    """Whether a part of that attention is computing something of it."""
    whole: torch.Tensor | None = None
    """What goes into a layer that computes first tokens alone, (1, tokens, …)."""
    narrow: torch.Tensor | None = None
    """Of that the first tokens."""
    apart: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Its keys and values: what stands for them until attention is computed, and those of all tokens."""
    row: int | None = None
    """Whose attention is being computed, where it is computed for one row after another."""
    unpadded: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """What every layer gets anew and need be unpadded only once, by the identity of the tensor."""
    buckets: dict[tuple[int, ...], Any] = field(default_factory=dict)
    """Short rows side by side, by the identity of the documents that look and are looked at, and by the
    number of heads of each."""
    biases: dict[tuple[int, int], RowBias] = field(default_factory=dict)
    """What is added to the scores, by the identity of the documents that look and are looked at."""

    @property
    def own(self) -> Documents | None:
        """The rows of the layers that are being computed without padding."""
        return None if self.stack is None else self.documents[self.stack]

    @property
    def seen(self) -> Documents:
        """The rows that attention looks at: those of the encoder where it reads its states."""
        own = self.own
        return self.documents[0] if self.states is not None or own is None else own

    @property
    def now(self) -> int | None:
        """Whose documents are being computed: those of the layers, or of the encoder they look at."""
        return 0 if self.reads_states else self.stack


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


def current_reading() -> Reading | None:
    """The forward pass that is being computed."""
    return _reading.get()


@contextmanager
def reading_of(batch: Mapping[str, torch.Tensor]) -> Iterator[Reading]:
    """Inside, a forward pass on `batch` may leave out its padding.

    A decoder without rows of its own reads those of the encoder, as for classes of whole texts.
    """
    first = documents_of(batch["attention_mask"])
    own = batch.get("decoder_attention_mask")
    documents = first, first if own is None else documents_of(own)
    with reading_again(Reading(documents)) as reading:
        yield reading


@contextmanager
def reading_again(reading: Reading) -> Iterator[Reading]:
    """Inside, `reading` is the current one."""
    token = _reading.set(reading)
    try:
        yield reading
    finally:
        _reading.reset(token)


def reading_now() -> Reading | None:
    """The current reading as it is at this moment, for layers that are computed again later."""
    found = _reading.get()
    return None if found is None else replace(found)
