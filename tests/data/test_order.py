import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from peftune.data.order import computed_tokens, permutation, rank_micro_batches, step_rows

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


def dealt(
    ids: list[int], sizes: list[int], world_size: int, per_device: int, mixed: bool
) -> list[list[list[int | None]]]:
    """The micro-batches of each rank."""
    return [
        rank_micro_batches(ids, sizes, rank, world_size, per_device, mixed)
        for rank in range(world_size)
    ]


SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=200)


@given(SIZES, WORLD, PER_DEVICE, st.booleans())
def test_the_ranks_share_a_step_without_rest(
    sizes: list[int], world_size: int, per_device: int, mixed: bool
) -> None:
    step = list(range(100, 100 + len(sizes)))
    shares = dealt(step, sizes, world_size, per_device, mixed)
    every = [row for share in shares for batch in share for row in batch if row is not None]
    assert sorted(every) == step
    assert {len(share) for share in shares} == {math.ceil(len(step) / (world_size * per_device))}
    assert all(1 <= len(batch) <= per_device for share in shares for batch in share)
    assert all(batch == [None] or None not in batch for share in shares for batch in share)


@given(SIZES, WORLD, PER_DEVICE)
def test_rows_of_like_length_share_a_turn(
    sizes: list[int], world_size: int, per_device: int
) -> None:
    shares = dealt(list(range(len(sizes))), sizes, world_size, per_device, False)
    turns = [
        [i for batch in turn for i in batch if i is not None] for turn in zip(*shares, strict=True)
    ]
    for longer, shorter in pairwise(turns):
        assert min(sizes[i] for i in longer) >= max(sizes[i] for i in shorter)


@given(SIZES, WORLD, PER_DEVICE)
def test_mixed_micro_batches_weigh_about_the_same(
    sizes: list[int], world_size: int, per_device: int
) -> None:
    shares = dealt(list(range(len(sizes))), sizes, world_size, per_device, True)
    batches = [[i for i in batch if i is not None] for share in shares for batch in share]
    weights = [sum(sizes[i] for i in batch) for batch in batches]
    for batch, weight in zip(batches, weights, strict=True):
        # The last row came when this bin had the fewest tokens of those with room.
        others = [w for b, w in zip(batches, weights, strict=True) if len(b) < per_device]
        assert weight - (min(sizes[i] for i in batch) if batch else 0) <= min([*others, weight])


def test_ranks_without_rows_get_fillers() -> None:
    for mixed in (False, True):
        assert dealt([10, 11, 12], [5, 5, 5], 2, 1, mixed) == [[[10], [12]], [[11], [None]]]
        assert dealt([], [], 2, 4, mixed) == [[], []]


def test_the_longest_rows_go_apart() -> None:
    sizes = [90, 10, 80, 20, 70, 30]
    assert dealt([0, 1, 2, 3, 4, 5], sizes, 1, 2, True) == [[[0, 1], [2, 3], [4, 5]]]
    assert dealt([0, 1, 2, 3, 4, 5], sizes, 1, 2, False) == [[[0, 2], [4, 5], [3, 1]]]


@given(SIZES, WORLD, PER_DEVICE, st.booleans(), st.integers(1, 2000))
def test_no_pass_computes_more_tokens_than_allowed(
    sizes: list[int], world_size: int, per_device: int, mixed: bool, most: int
) -> None:
    step = list(range(len(sizes)))
    shares = [
        rank_micro_batches(step, sizes, rank, world_size, per_device, mixed, most)
        for rank in range(world_size)
    ]
    batches = [[i for i in batch if i is not None] for share in shares for batch in share]
    assert sorted(i for batch in batches for i in batch) == step
    assert len({len(share) for share in shares}) == 1
    for batch in batches:
        own = [sizes[i] for i in batch]
        assert len(batch) <= 1 or computed_tokens(own, mixed) <= most
    # No turn more than needed: one less would be too few somewhere.
    if most >= sum(sizes) * (1 if mixed else len(sizes)):
        assert len(shares[0]) == math.ceil(len(sizes) / (world_size * per_device))
