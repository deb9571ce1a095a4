"""Random numbers of a training step that belong to rows: dropout and noise on any layout.

torch draws the dropout of a whole batch from one stream, so a row's mask depends on its neighbours,
the padding and the rank. Here each number is a function of (seed, step, row, draws before it in the
forward pass, place within the row), so a row is treated alike wherever it is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from peftune.errors import TrainingError
from peftune.model.documents import current_reading
from peftune.training.randomness import derived_seed

ONES = 2**32 - 1
AXES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Odd multipliers that keep the axes of a row's tensors apart: the 32-bit primes of xxHash."""


@dataclass
class RowDraws:
    """The draws of one forward pass, each of which goes on with every row's own numbers."""

    keys: torch.Tensor
    """Each row's number, int64 below 2**32, (rows,)."""
    step_key: torch.Tensor
    """The same for what all rows of a step share, int64 (1,)."""
    count: int = 0
    """Draws so far: the masks of one layer are not those of the next."""
    shared: bool = False
    """Whether what is drawn now belongs to no row."""
    places: dict[tuple[int | None, torch.Size], torch.Tensor] = field(default_factory=dict)
    """By whose documents they are and the shape without rows, a number for each place: the same in
    every layer."""

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Numbers in [0, 1), float32 in the shape of `like`.

        `like` is (rows, …) or (rows * k, …); without padding (1, tokens, …), (tokens, …), or the
        attention weights of one row, (1, …). Raises TrainingError for other shapes.
        """
        return (self._bits(like) >> 8 & 0xFFFFFF).float() * 2.0**-24

    def kept(self, like: torch.Tensor, p: float) -> torch.Tensor:
        """Where dropout with probability `p` leaves a value, bool in the shape of `like`."""
        return (self._bits(like) & 0x7FFFFFFF) >= round(p * 2**31)

    def _bits(self, like: torch.Tensor) -> torch.Tensor:
        """32 random bits for each element, int32.

        SplitMix (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") with
        32 bits: a mixed Weyl sequence whose start and increment are the row's own.
        """
        reading = current_reading()
        # Attention without padding takes one row after another, in what is one draw for all.
        if reading is None or not reading.row:
            self.count += 1
        salt, axes = derived_seed(self.count), self._axes(like)
        start, increment = (
            _along(_as_int32(_mixed_int64(axes.keys ^ part)), axes.key_axis, axes.shape)
            for part in (salt & ONES, salt >> 31)
        )
        kind = (axes.stack, axes.shape[1:])
        if kind not in self.places:
            self.places[kind] = _places(axes, like.device)
        place = self.places[kind]
        return _mixed_int32(place * (increment | 1) + start).view(like.shape)

    def _axes(self, like: torch.Tensor) -> "Axes":
        if self.shared:
            return Axes(torch.Size((1, *like.shape)), self.step_key)
        reading = current_reading()
        if reading is None or reading.now is None:
            return _by_rows(like, self.keys)
        if reading.row is not None:
            return _by_rows(like, self.keys[reading.row][None])
        documents = reading.documents[reading.now]
        return _by_tokens(like, self.keys[documents.rows], documents.positions, reading.now)


@dataclass(frozen=True)
class Axes:
    """A tensor of a forward pass, seen as values of rows."""

    shape: torch.Size
    """Its shape, with a leading axis of rows or of 1."""
    keys: torch.Tensor
    """The numbers of the rows, one for each place along `key_axis`."""
    key_axis: int = 0
    stack: int | None = None
    """Whose documents they are, where `key_axis` is one of tokens without padding."""
    positions: torch.Tensor | None = None
    """There each token's place in its row."""


def row_draws(seed: int, step: int, batch: Mapping[str, torch.Tensor]) -> RowDraws:
    """The draws of a step (from 0) for a batch with `row_ids`."""
    salt, rows = derived_seed(seed, "step", step), batch["row_ids"][:, 0]
    of_step = _mixed_int64(torch.tensor([salt & ONES], device=rows.device)) ^ salt >> 31
    keys = _mixed_int64(_mixed_int64(rows & ONES) * AXES[0] & ONES ^ of_step)
    return RowDraws(keys, of_step)


def _places(axes: Axes, device: torch.device) -> torch.Tensor:
    """A number for each place within a row, int32, broadcast over the axis of rows."""
    place = torch.zeros((), dtype=torch.int32, device=device)
    for axis, size in enumerate(axes.shape):
        if axis:
            steps = torch.arange(size, device=device)
            if axes.positions is not None and axis == axes.key_axis:
                steps = axes.positions
            numbers = _as_int32(steps * AXES[(axis - 1) % len(AXES)] & ONES)
            place = place + _along(numbers, axis, axes.shape)
    return place


def _along(numbers: torch.Tensor, axis: int, shape: torch.Size) -> torch.Tensor:
    """Numbers of one axis, ready to be broadcast to `shape`."""
    return numbers.view([-1 if other == axis else 1 for other in range(len(shape))])


def _by_rows(like: torch.Tensor, keys: torch.Tensor) -> Axes:
    rows = len(keys)
    if like.shape[0] % rows:
        raise _not_of_rows(like)
    split = like.shape if like.shape[0] == rows else like.unflatten(0, (rows, -1)).shape
    return Axes(split, keys)


def _by_tokens(
    like: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, stack: int | None
) -> Axes:
    shape = like.shape if like.shape[0] == 1 else torch.Size((1, *like.shape))
    if shape[1] != len(positions):
        raise _not_of_rows(like)
    return Axes(shape, keys, 1, stack, positions)


def _not_of_rows(like: torch.Tensor) -> TrainingError:
    return TrainingError(
        f"dropout: the model drops values of a tensor {tuple(like.shape)} that cannot be told apart by "
        "rows, so its numbers would depend on the layout; set its dropout to 0 in the model's "
        "config.json and adapter.lora_dropout: 0."
    )


def _as_int32(numbers: torch.Tensor) -> torch.Tensor:
    """The same 32 bits, from int64 below 2**32."""
    return (numbers - (numbers >> 31 << 32)).to(torch.int32)


def _mixed_int64(x: torch.Tensor) -> torch.Tensor:
    """As _mixed_int32, on int64 below 2**32."""
    x = (x ^ x >> 16) * 0x7FEB352D & ONES
    x = (x ^ x >> 15) * 0x846CA68B & ONES
    return x ^ x >> 16


def _mixed_int32(x: torch.Tensor) -> torch.Tensor:
    """Changes `x` in place so that each bit depends on all of its bits.

    Constants: "lowbias32" of Wellons' hash-prospector. int32 shifts bring the sign along.
    """
    x.bitwise_xor_(x >> 16 & 0xFFFF).mul_(0x7FEB352D)
    x.bitwise_xor_(x >> 15 & 0x1FFFF).mul_(0x846CA68B - 2**32)
    return x.bitwise_xor_(x >> 16 & 0xFFFF)
