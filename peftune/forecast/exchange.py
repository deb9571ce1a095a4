"""What ranks send each other in a step, by engine."""

import math
from dataclasses import dataclass

from peftune.engines.launch import Launch
from peftune.forecast.devices import Device
from peftune.forecast.rehearsal import Rehearsal
from peftune.forecast.sharing import PERSISTENT, REUSED, layers_of

DDP_BUCKET = 25 * 2**20
"""Bytes that torch's DistributedDataParallel exchanges at a time."""


@dataclass(frozen=True)
class Exchange:
    """Of one rank in one step."""

    bytes: float = 0.0
    collectives: float = 0.0
    hidden: bool = False
    """Whether it goes on while a GPU computes."""

    def seconds(self, device: Device, nodes: int) -> float:
        """On links of a node, or between nodes where there are several."""
        rate = device.network if nodes > 1 else device.link
        return self.collectives * device.latency + (self.bytes / rate if rate else 0.0)


def exchange_of(rehearsal: Rehearsal, launch: Launch, passes: int) -> Exchange:
    """Gradients A are summed and weights W gathered; a ring sends (N-1)/N of what it moves."""
    ranks = launch.world_size
    if ranks == 1:
        return Exchange()
    share, trained = (ranks - 1) / ranks, rehearsal.total(True)
    tensors = sum(one.trains for one in rehearsal.parameters)
    match launch.engine:
        case "ddp":
            return Exchange(2 * share * trained, math.ceil(trained / DDP_BUCKET) + 2, hidden=True)
        case "zero1":
            return Exchange(2 * share * trained, 6)
        case "zero2":
            return Exchange((passes + 1) * share * trained, 4 + 2 * passes)
        case "zero3":
            return _zero3(rehearsal, share, passes, tensors)
    frozen, layers = rehearsal.total(False), _count_layers(rehearsal)
    sent = share * (2 * passes * (frozen + trained) + trained)
    return Exchange(sent, (2 * passes + 1) * layers, hidden=True)


def _zero3(rehearsal: Rehearsal, share: float, passes: int, tensors: int) -> Exchange:
    large = [one for one in rehearsal.parameters if not one.trains and one.numel > PERSISTENT]
    size, numel = sum(one.bytes for one in large), sum(one.numel for one in large)
    # What is needed again soon is gathered once for forward and backward.
    times = 1 if numel <= REUSED else 2
    trained = rehearsal.total(True)
    sent = share * (times * passes * size + (passes + 1) * trained)
    return Exchange(sent, times * passes * len(large) + 4, hidden=numel > REUSED)


def _count_layers(rehearsal: Rehearsal) -> int:
    largest = layers_of(rehearsal).largest
    return max(1, math.ceil(rehearsal.total(False) / largest)) if largest else 1
