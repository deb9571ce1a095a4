"""What a rank holds under each engine, from what a process holds that has the whole model.

W are the frozen weights, A what is trained (float32), N the number of ranks that share.
"""

import math
from dataclasses import dataclass

from peftune.engines.deepspeed_zero import LARGEST_BUCKET
from peftune.engines.launch import Launch
from peftune.forecast.rehearsal import Rehearsal, Tensor
from peftune.forecast.tracing import GRADIENTS

REUSED = 1_000_000_000
"""Parameters that stage 3 keeps whole because they are needed again soon (DeepSpeed's
`stage3_max_reuse_distance` and `stage3_max_live_parameters`)."""
PREFETCHED = 50_000_000
"""Parameters that stage 3 gathers at a time before they are needed (`stage3_prefetch_bucket_size`)."""
PERSISTENT = 100_000
"""Parameters of a tensor that stage 3 leaves whole (`stage3_param_persistence_threshold`)."""
EIGHT_BITS = ("adamw_bnb_8bit", "paged_adamw_8bit")
MOMENTS = 2


@dataclass(frozen=True)
class Layers:
    """Frozen bytes of a model's largest layer, and of all that is outside of layers."""

    largest: int
    outside: int


def layers_of(rehearsal: Rehearsal) -> Layers:
    """By the number in a parameter's name that says which layer it is of."""
    sizes: dict[str, int] = {}
    outside = 0
    for one in rehearsal.parameters:
        layer = _layer(one.name)
        if layer is None:
            outside += one.bytes
        else:
            sizes[layer] = sizes.get(layer, 0) + one.bytes
    return Layers(max(sizes.values(), default=0), outside)


def _layer(name: str) -> str | None:
    """The beginning of a parameter's name up to its first number."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else None


def rank_parts(rehearsal: Rehearsal, launch: Launch, optim: str) -> dict[str, int]:
    """Bytes of a rank when it holds the most in training, by what they are."""
    parts = {**rehearsal.training.parts}
    parts.setdefault(GRADIENTS, 0)
    if optim in EIGHT_BITS:
        # Two bytes for both moments instead of eight, and their scales.
        parts["optimizer"] = math.ceil(parts["optimizer"] * (0.25 + 1 / 256))
    if launch.world_size == 1 and launch.engine == "ddp":
        return parts
    shares = {"ddp": _ddp, "zero1": _zero, "zero2": _zero, "zero3": _zero3, "fsdp2": _fsdp2}
    return shares[launch.engine](parts, rehearsal, launch)


def _ddp(parts: dict[str, int], rehearsal: Rehearsal, launch: Launch) -> dict[str, int]:
    """Everything whole, and buckets with the gradients of all ranks."""
    return {**parts, "exchange": rehearsal.total(True)}


def _zero(parts: dict[str, int], rehearsal: Rehearsal, launch: Launch) -> dict[str, int]:
    """A whole and, of the copy that the optimizer steps on, a part; gradients by buckets."""
    ranks = launch.world_size
    own = math.ceil(rehearsal.total(True) / ranks)
    shared = {"adapter": parts["adapter"] + own, "exchange": _bucket(rehearsal)}
    shared["optimizer"] = math.ceil(parts["optimizer"] / ranks)
    if launch.engine == "zero2":
        shared[GRADIENTS] = math.ceil(parts[GRADIENTS] / ranks)
    return _offloaded({**parts, **shared}, launch)


def _zero3(parts: dict[str, int], rehearsal: Rehearsal, launch: Launch) -> dict[str, int]:
    """Shards of everything, and what is whole because it is small or needed again soon."""
    ranks = launch.world_size
    frozen = [one for one in rehearsal.parameters if not one.trains]
    large = [one for one in frozen if one.numel > PERSISTENT]
    again = [one for one in large if one.again]
    whole = _at_most(REUSED, again) + sum(one.bytes for one in frozen if one.numel <= PERSISTENT)
    trained = [one for one in rehearsal.parameters if one.trains]
    kept = sum(one.bytes for one in trained)
    shared = {
        "weights": parts["weights"] - sum(one.bytes for one in frozen) + _shards(frozen, ranks),
        "gathered": whole + _arriving(large, parts["activations"] - rehearsal.forward),
        "adapter": kept + _shards(trained, ranks),
        "optimizer": math.ceil(parts["optimizer"] / ranks),
        GRADIENTS: math.ceil(parts[GRADIENTS] / ranks) + _shards(trained, ranks),
        "exchange": _bucket(rehearsal),
    }
    return _offloaded({**parts, **shared}, launch)


def _bucket(rehearsal: Rehearsal) -> int:
    """Bytes that DeepSpeed sets aside for the exchange of float32 gradients."""
    return min(4 * LARGEST_BUCKET, rehearsal.total(True))


def _arriving(large: list[Tensor], later: int) -> int:
    """Bytes of the buffer that parameters are copied out of when they have come in.

    It is there until the last of them is used: where all are kept for the backward pass that is the end
    of the forward pass, when `later` bytes of activations are still to come.
    """
    buffer = _at_most(PREFETCHED, large)
    return buffer if sum(one.numel for one in large) > REUSED else max(0, buffer - later)


def _at_most(most: int, large: list[Tensor]) -> int:
    """Bytes of as many parameters, in these tensors."""
    numel, size = sum(one.numel for one in large), sum(one.bytes for one in large)
    return size if numel <= most else math.ceil(size * most / numel)


def _shards(tensors: list[Tensor], ranks: int) -> int:
    return sum(math.ceil(one.bytes / ranks) for one in tensors)


def _fsdp2(parts: dict[str, int], rehearsal: Rehearsal, launch: Launch) -> dict[str, int]:
    """Shards of everything; whole are the layer that is computed, the next one, and what is outside of
    layers."""
    ranks, layers = launch.world_size, layers_of(rehearsal)
    frozen = [one for one in rehearsal.parameters if not one.trains]
    trained = [one for one in rehearsal.parameters if one.trains]
    plain = sum(one.bytes for one in frozen)
    shared = {
        "weights": parts["weights"] - plain + _rows(frozen, ranks),
        "adapter": _rows(trained, ranks),
        "gathered": layers.outside + 2 * layers.largest,
        "optimizer": math.ceil(parts["optimizer"] / ranks),
        GRADIENTS: math.ceil(parts[GRADIENTS] / ranks),
    }
    return _offloaded({**parts, **shared}, launch)


def _rows(tensors: list[Tensor], ranks: int) -> int:
    """Shards by the first dimension, the last of them padded."""
    return sum(one.bytes // max(1, one.dim) * math.ceil(max(1, one.dim) / ranks) for one in tensors)


def _offloaded(parts: dict[str, int], launch: Launch) -> dict[str, int]:
    """With offload shards and optimizer state live in host memory."""
    if not launch.offload:
        return parts
    moved = ("weights", "optimizer") if launch.engine in ("zero3", "fsdp2") else ("optimizer",)
    host = sum(parts[name] for name in moved)
    return {**parts, **dict.fromkeys(moved, 0), "host": host}
