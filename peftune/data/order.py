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
) -> list[list[int | None]]:
    """One rank's share of a step, in micro-batches of at most `per_device` rows.

    `sizes` are the tokens of each of `row_ids`. Rows of like length share a micro-batch, which has
    little padding then; or, `mixed`, all micro-batches get about as many tokens. Either way ranks
    have about as much to do at a time. Every rank gets the same number of micro-batches; where rows
    have run out the micro-batch is `[None]`, a row that weighs nothing but keeps the ranks in lockstep.
    """
    longest_first = sorted(range(len(row_ids)), key=lambda place: -sizes[place])
    count = math.ceil(len(row_ids) / (world_size * per_device))
    deal = _mixed if mixed else _alike
    shares = deal(longest_first, sizes, count * world_size, per_device, world_size)
    return [
        [row_ids[place] for place in shares[turn * world_size + rank]] or [None]
        for turn in range(count)
    ]


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
