"""Batch and step arithmetic by hand, and ways out of an error that really lead out."""

import math
import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peftune.errors import RecipeError
from peftune.plan import Plan, global_batch_size, make_plan

SIZES = st.integers(1, 64)
WAYS_OUT = re.compile(
    r"train\.global_batch_size: (\d+) is not a multiple of (\d+) \((\d+) rows per device × (\d+) "
    r"devices\)\. Use (\d+)(?: or (\d+))?(?:, or set train\.per_device_train_batch_size: (\d+))?\."
)


def plan(**keys: Any) -> Plan:
    """40 rows on one device, two at a time, eight in a step, once."""
    numbers = {
        "rows": 40,
        "world_size": 1,
        "per_device": 2,
        "global_batch": 8,
        "accumulation": None,
        "epochs": None if "max_steps" in keys else 1,
        "max_steps": None,
        "warmup_steps": None,
        "warmup_ratio": None,
    }
    return make_plan(**{**numbers, **keys})


def test_all_numbers_of_a_plan() -> None:
    assert plan(rows=1000, world_size=3, per_device=4, global_batch=48, epochs=2) == Plan(
        rows=1000,
        world_size=3,
        per_device_batch_size=4,
        global_batch_size=48,
        micro_batches_per_step=4,
        steps_per_epoch=21,
        total_steps=42,
        warmup_steps=0,
    )


@settings(deadline=None)
@given(SIZES, SIZES, SIZES)
def test_accumulation_multiplies_rows_devices_and_passes(
    per_device: int, world_size: int, accumulation: int
) -> None:
    rows = global_batch_size(per_device, world_size, None, accumulation)
    assert rows == per_device * world_size * accumulation
    assert global_batch_size(per_device, world_size, rows, None) == rows


@pytest.mark.parametrize(
    ("world_size", "per_device", "passes"), [(1, 2, 4), (2, 2, 2), (4, 2, 1), (1, 8, 1), (8, 1, 1)]
)
def test_more_devices_accumulate_less_and_steps_stay_the_same(
    world_size: int, per_device: int, passes: int
) -> None:
    chosen = plan(world_size=world_size, per_device=per_device, epochs=3)
    assert chosen.micro_batches_per_step == passes
    assert (chosen.global_batch_size, chosen.steps_per_epoch, chosen.total_steps) == (8, 5, 15)


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (7, 1), (8, 1), (9, 2), (40, 5), (41, 6)])
def test_the_last_step_of_an_epoch_may_be_short(rows: int, steps: int) -> None:
    chosen = plan(rows=rows, epochs=3)
    assert (chosen.steps_per_epoch, chosen.total_steps, chosen.epochs) == (steps, 3 * steps, 3.0)


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, 0.2), (5, 1.0), (12, 2.4)])
def test_steps_may_end_within_an_epoch(max_steps: int, epochs: float) -> None:
    chosen = plan(max_steps=max_steps)
    assert (chosen.total_steps, chosen.epochs) == (max_steps, epochs)


@pytest.mark.parametrize(
    ("keys", "warmup_steps"),
    [
        ({"warmup_steps": 3}, 3),
        ({"warmup_steps": 0}, 0),
        ({"warmup_ratio": 0.0}, 0),
        ({"warmup_ratio": 0.5}, 10),
        ({"warmup_ratio": 0.01}, 1),
        ({"warmup_ratio": 0.26}, 6),
    ],
)
def test_warmup_in_steps_or_as_a_share_rounded_up(keys: dict[str, Any], warmup_steps: int) -> None:
    assert plan(max_steps=20, **keys).warmup_steps == warmup_steps


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 500))
def test_a_batch_that_devices_cannot_share_is_refused_with_ways_out(
    per_device: int, world_size: int, batch: int
) -> None:
    """Every batch size and every number of rows that the message names is accepted."""
    assume(batch % (per_device * world_size))
    with pytest.raises(RecipeError) as refused:
        global_batch_size(per_device, world_size, batch, None)
    named = WAYS_OUT.fullmatch(str(refused.value))
    assert named is not None, str(refused.value)
    *facts, first, second, smaller = (int(number) if number else None for number in named.groups())
    assert facts == [batch, per_device * world_size, per_device, world_size]
    for size in (first, second):
        assert size is None or global_batch_size(per_device, world_size, size, None) == size
    if smaller is not None:
        assert smaller < per_device
        assert global_batch_size(smaller, world_size, batch, None) == batch


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 500))
def test_the_ways_out_are_the_nearest_ones(per_device: int, world_size: int, batch: int) -> None:
    per_pass = per_device * world_size
    assume(batch % per_pass)
    with pytest.raises(RecipeError) as refused:
        global_batch_size(per_device, world_size, batch, None)
    named = WAYS_OUT.fullmatch(str(refused.value))
    assert named is not None
    sizes = [int(number) for number in named.groups()[4:6] if number]
    assert len(sizes) == (2 if batch > per_pass else 1)
    assert all(0 < abs(size - batch) < per_pass for size in sizes)
    fewer_rows = [rows for rows in range(1, per_device) if batch % (rows * world_size) == 0]
    assert (named[7] is not None) == bool(fewer_rows)


def test_the_message_in_full() -> None:
    with pytest.raises(RecipeError) as refused:
        plan(per_device=6, world_size=2, global_batch=16)
    assert str(refused.value) == (
        "train.global_batch_size: 16 is not a multiple of 12 (6 rows per device × 2 devices). "
        "Use 12 or 24, or set train.per_device_train_batch_size: 2."
    )


@settings(deadline=None)
@given(st.integers(1, 5000), SIZES, SIZES, st.integers(1, 20), st.integers(1, 5))
def test_every_row_has_its_place_in_an_epoch(
    rows: int, per_device: int, world_size: int, accumulation: int, epochs: int
) -> None:
    chosen = plan(
        rows=rows,
        per_device=per_device,
        world_size=world_size,
        global_batch=None,
        accumulation=accumulation,
        epochs=epochs,
    )
    room = chosen.steps_per_epoch * chosen.global_batch_size
    assert rows <= room < rows + chosen.global_batch_size
    assert chosen.total_steps == epochs * math.ceil(rows / chosen.global_batch_size)
    passes = chosen.micro_batches_per_step * chosen.per_device_batch_size * chosen.world_size
    assert passes == chosen.global_batch_size
