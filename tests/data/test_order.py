import math

from hypothesis import given
from hypothesis import strategies as st

from peftune.data.order import permutation, rank_micro_batches, step_rows

SEEDS = st.integers(0, 2**64 - 1)
ROWS = st.integers(1, 200)
BATCH = st.integers(1, 64)
WORLD = st.integers(1, 9)
PER_DEVICE = st.integers(1, 9)


@given(SEEDS, st.integers(0, 5), ROWS, BATCH)
def test_each_epoch_visits_each_row_once(seed: int, epoch: int, rows: int, batch: int) -> None:
    steps = math.ceil(rows / batch)
    visited = [step_rows(seed, epoch * steps + step, rows, batch) for step in range(steps)]
    assert sorted(row for step in visited for row in step) == list(range(rows))
    assert all(len(step) == batch for step in visited[:-1])


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = {permutation(seed, epoch, 50) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6


def test_the_order_is_the_same_in_every_release() -> None:
    assert permutation(7, 0, 10) == (8, 4, 1, 6, 3, 2, 7, 5, 9, 0)
    assert permutation(7, 1, 10) == (3, 9, 1, 6, 2, 5, 4, 8, 0, 7)


@given(ROWS, WORLD, PER_DEVICE)
def test_the_ranks_share_a_step_without_rest(rows: int, world_size: int, per_device: int) -> None:
    step = list(range(100, 100 + rows))
    shares = [rank_micro_batches(step, rank, world_size, per_device) for rank in range(world_size)]
    dealt = [row for share in shares for batch in share for row in batch if row is not None]
    assert sorted(dealt) == step
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(batch) <= per_device for share in shares for batch in share)
    assert len(shares[0]) == math.ceil(math.ceil(rows / world_size) / per_device)
    assert all(batch == [None] or None not in batch for share in shares for batch in share)


@given(SEEDS, st.integers(0, 40), ROWS, BATCH, WORLD, PER_DEVICE)
def test_a_step_is_the_same_on_any_number_of_ranks(
    seed: int, step: int, rows: int, batch: int, world_size: int, per_device: int
) -> None:
    ids = step_rows(seed, step, rows, batch)
    shared = [
        row
        for rank in range(world_size)
        for micro_batch in rank_micro_batches(ids, rank, world_size, per_device)
        for row in micro_batch
    ]
    assert sorted(row for row in shared if row is not None) == sorted(ids)


def test_ranks_without_rows_get_fillers() -> None:
    shares = [rank_micro_batches([10, 11, 12], rank, 2, 1) for rank in (0, 1)]
    assert shares == [[[10], [12]], [[11], [None]]]
    assert rank_micro_batches([], 0, 2, 4) == []
