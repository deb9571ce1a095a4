"""How long the calls of a trace take: on this machine by making them, elsewhere by stated rates."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch.utils._pytree import tree_map
from transformers import LlamaConfig, LlamaForCausalLM

from peftune.engines.ranks import Ranks
from peftune.forecast.calls import ARGUMENTS, Asking, Call, Shape
from peftune.forecast.devices import Device
from peftune.training.loss import batch_nll_sum
from peftune.training.shortcuts import compute_fast

REPEATS = 3
EVICTING = 2**20
"""Numbers of float32 that take the place of most others in a core's own caches. With twice as many, code
and not only numbers comes from afar, which makes small calls too dear."""
SMALL, LARGE = 256, 2**22
"""Numbers in a collective for its latency, and for its rate."""


def seconds_of(calls: Counter[Call], asked: float, device: Device, hooks: float = 0.0) -> float:
    """Time of these calls, one after another, of what torch is asked for besides, and of an engine's
    hooks in such functions; 0 where the device's rates are not known."""
    if device.kind == "cpu":
        made = sum(_made(call) * count for call, count in calls.items())
        return made + device.overhead * (asked + hooks)
    if not device.half_flops:
        return 0.0
    computed = sum(_stated(call, device) * count for call, count in calls.items())
    # The host runs ahead of a GPU, as long as it is the faster of the two.
    return max(computed, device.overhead * (sum(calls.values()) + hooks))


def _stated(call: Call, device: Device) -> float:
    """By the slower of products and memory. Products of 8-bit numbers are at least as fast as those in
    half precision."""
    rate = device.full_flops if call.dtype is torch.float32 else device.half_flops
    return max(call.flops / rate, call.bytes / device.bandwidth) / device.reached


def _made(call: Call) -> float:
    """The median of a few real calls on numbers of the same shapes, which are not in the caches: in a
    training other numbers have passed through them since."""
    arguments, keywords = tree_map(_real, ARGUMENTS[call.arguments], is_leaf=_is_shape)
    if "device" in keywords:
        keywords = {**keywords, "device": torch.device("cpu")}
    others, taken = torch.zeros(EVICTING), []
    with torch.no_grad():
        for _ in range(REPEATS):
            others.add_(1.0)
            taken.append(_timed(lambda: call.function(*arguments, **keywords)))
    return statistics.median(taken)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, Shape)


def _real(leaf: Any) -> Any:
    if not isinstance(leaf, Shape):
        return leaf
    return torch.empty_strided(leaf.sizes, leaf.strides, dtype=leaf.dtype).fill_(0)


def _timed(compute: Callable[[], Any]) -> float:
    started = time.perf_counter()
    compute()
    return time.perf_counter() - started


def measured_device(ranks: Ranks | None = None) -> Device:
    """This machine's CPU: what a call of autograd costs beside its kernel, and what collectives do."""
    memory = _memory()
    overhead = _overhead()
    if ranks is None or ranks.world_size == 1:
        return Device("this CPU", "cpu", memory, overhead=overhead, reached=1.0)
    small, large = (_exchange(size) for size in (SMALL, LARGE))
    volume = 2 * (ranks.world_size - 1) / ranks.world_size * 4 * LARGE
    link = volume / max(large - small, 1e-9)
    return Device(
        "this CPU",
        "cpu",
        memory,
        link=link,
        network=link,
        latency=small,
        overhead=overhead,
        reached=1.0,
    )


def _memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _overhead() -> float:
    """Seconds for each function that torch is asked for beside its kernel: by a model that has next to
    nothing to compute, with its adapter and shortcuts."""
    sizes: dict[str, Any] = {
        "vocab_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
    }
    with torch.random.fork_rng([]):
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1)).requires_grad_(False)
        config = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules="all-linear")
        adapted = compute_fast(
            PeftModel(model, config, "default"), padding_free=True, generates=True
        )
    ids = torch.ones(1, 8, dtype=torch.int64)
    batch = {"input_ids": ids, "attention_mask": ids, "labels": ids}

    def compute() -> None:
        batch_nll_sum(adapted, batch, "causal").backward()

    compute()
    with Asking() as asking:
        compute()
    return min(_timed(compute) for _ in range(5)) / asking.count


def _exchange(size: int) -> float:
    """Seconds of summing so many float32 numbers over the ranks; a collective."""
    numbers = torch.zeros(size)
    return min(_timed(lambda: torch.distributed.all_reduce(numbers)) for _ in range(REPEATS))
