"""Which rows an optimizer step reads: arithmetic of seed, step and sizes, so nothing to save."""

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """The order of `rows` row ids in an epoch, the same on every machine.

    Sorts the raw 64-bit outputs of Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as
    easy as 1, 2, 3") under the key (seed, epoch). NumPy keeps a bit generator's raw stream stable
    across releases, which it does not promise for its own shuffles (NEP 19).
    """
    stream = numpy.random.Philox(key=numpy.array([seed, epoch], dtype=numpy.uint64))
    return tuple(numpy.argsort(stream.random_raw(rows), kind="stable").tolist())


def step_rows(seed: int, step: int, rows: int, global_batch: int) -> list[int]:
    """Row ids of optimizer step `step` (from 0), for all ranks together.

    Each epoch visits every row once, in its own order; its last step may be short. The answer does
    not depend on the number of devices.
    """
    steps_per_epoch = math.ceil(rows / global_batch)
    epoch, position = divmod(step, steps_per_epoch)
    start = position * global_batch
    return list(permutation(seed, epoch, rows)[start : start + global_batch])


def rank_micro_batches(
    row_ids: Sequence[int],
    sizes: Sequence[int],
    rank: int,
    world_size: int,
    per_device: int,
    mixed: bool,
    most_tokens: int | None = None,
) -> list[list[int | None]]:
    """One rank's share of a step, in micro-batches of at most `per_device` rows.

    `sizes` are the tokens of each of `row_ids`. Rows of like length share a micro-batch, which has
    little padding then; or, `mixed`, all micro-batches get about as many tokens. Either way ranks
    have about as much to do at a time. With `most_tokens` there are as many micro-batches as it takes
    for none to compute more, unless a row alone does. Every rank gets the same number of
    micro-batches; where rows have run out the micro-batch is `[None]`, a row that weighs nothing but
    keeps the ranks in lockstep.
    """
    shares = _dealt(sizes, world_size, per_device, mixed, most_tokens)
    return [[row_ids[place] for place in share] or [None] for share in shares[rank::world_size]]


def computed_tokens(sizes: Sequence[int], mixed: bool) -> int:
    """What a micro-batch of such rows computes: their tokens, or those of the longest for each."""
    return sum(sizes) if mixed or not sizes else len(sizes) * max(sizes)


def _dealt(
    sizes: Sequence[int], world_size: int, per_device: int, mixed: bool, most: int | None
) -> list[list[int]]:
    """The places of the rows of each micro-batch, a turn of all ranks after another."""
    longest_first = sorted(range(len(sizes)), key=lambda place: -sizes[place])
    turns, room = math.ceil(len(sizes) / (world_size * per_device)), per_device
    while True:
        deal = _mixed if mixed else _alike
        shares = deal(longest_first, sizes, turns * world_size, room, world_size)
        own = [[sizes[place] for place in share] for share in shares]
        if most is None or all(len(o) <= 1 or computed_tokens(o, mixed) <= most for o in own):
            return shares
        # One turn more; or less room, where rows are taken in their order.
        room = room if mixed else room - 1
        turns = turns + 1 if mixed else math.ceil(len(sizes) / (world_size * room))


def _alike(
    places: list[int], sizes: Sequence[int], bins: int, room: int, world_size: int
) -> list[list[int]]:
    """Rows next to each other in a bin of each rank's; the bins of a turn are those of all ranks."""
    per_turn = world_size * room
    return [
        places[turn : turn + per_turn][rank::world_size]
        for turn in range(0, bins * room, per_turn)
        for rank in range(world_size)
    ]


def _mixed(
    places: list[int], sizes: Sequence[int], bins: int, room: int, world_size: int
) -> list[list[int]]:
    """Each row, the longest first, into the bin with the fewest tokens (Graham 1969, "Bounds on
    multiprocessing timing anomalies")."""
    shares: list[list[int]] = [[] for _ in range(bins)]
    open_bins = [(0, index) for index in range(bins)]
    for place in places:
        tokens, index = heapq.heappop(open_bins)
        shares[index].append(place)
        if len(shares[index]) < room:
            heapq.heappush(open_bins, (tokens + sizes[place], index))
    return shares
