"""Which rows an optimizer step reads: arithmetic of seed, step and sizes, so nothing to save."""

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
    row_ids: Sequence[int], rank: int, world_size: int, per_device: int
) -> list[list[int | None]]:
    """One rank's share of a step, in micro-batches of at most `per_device` rows.

    Rows are dealt out in turn, so ranks differ by at most one row. Every rank gets the same number
    of micro-batches; where its rows have run out the micro-batch is `[None]`, a row that weighs
    nothing but keeps the ranks in lockstep.
    """
    own = row_ids[rank::world_size]
    most = math.ceil(len(row_ids) / world_size)
    return [[*own[start : start + per_device]] or [None] for start in range(0, most, per_device)]
