"""Batch and step arithmetic, pure and without torch: what the recipe means on so many devices."""

import math
from dataclasses import dataclass

from peftune.errors import RecipeError


@dataclass(frozen=True)
class Plan:
    """The run in numbers. All counts are of rows or optimizer steps."""

    rows: int
    world_size: int
    per_device_batch_size: int
    global_batch_size: int
    micro_batches_per_step: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    @property
    def epochs(self) -> float:
        """Passes over the rows that `total_steps` make."""
        return self.total_steps / self.steps_per_epoch


def global_batch_size(
    per_device: int, world_size: int, global_batch: int | None, accumulation: int | None
) -> int:
    """Rows per optimizer step; raises RecipeError when the devices cannot share them equally."""
    per_pass = per_device * world_size
    if accumulation is not None:
        return per_pass * accumulation
    assert global_batch is not None
    if global_batch % per_pass:
        raise RecipeError(_not_divisible(global_batch, per_device, world_size))
    return global_batch


def _not_divisible(global_batch: int, per_device: int, world_size: int) -> str:
    per_pass = per_device * world_size
    below, above = global_batch // per_pass * per_pass, -(-global_batch // per_pass) * per_pass
    choices = f"{below} or {above}" if below else f"{above}"
    smaller = (
        math.gcd(global_batch // world_size, per_device) if global_batch % world_size == 0 else 0
    )
    way_out = f", or set train.per_device_train_batch_size: {smaller}" if smaller else ""
    return (
        f"train.global_batch_size: {global_batch} is not a multiple of {per_pass} "
        f"({per_device} rows per device × {world_size} devices). Use {choices}{way_out}."
    )


def make_plan(
    *,
    rows: int,
    world_size: int,
    per_device: int,
    global_batch: int | None,
    accumulation: int | None,
    epochs: int | None,
    max_steps: int | None,
    warmup_steps: int | None,
    warmup_ratio: float | None,
) -> Plan:
    """Turn the recipe's batch keys into steps. The last step of an epoch may be short."""
    batch = global_batch_size(per_device, world_size, global_batch, accumulation)
    steps_per_epoch = math.ceil(rows / batch)
    total = max_steps if max_steps is not None else steps_per_epoch * (epochs or 1)
    warmup = warmup_steps if warmup_steps is not None else math.ceil(total * (warmup_ratio or 0.0))
    return Plan(
        rows=rows,
        world_size=world_size,
        per_device_batch_size=per_device,
        global_batch_size=batch,
        micro_batches_per_step=batch // (per_device * world_size),
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=warmup,
    )
