"""How much memory was really allocated, as torch's own allocators count it."""

import gc
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


@dataclass
class Allocated:
    """Bytes of tensors: alive at first, and the most that were alive at a time."""

    start: int = 0
    peak: int = 0


@contextmanager
def allocations(device: torch.device) -> Iterator[Allocated]:
    """Inside, allocations on `device` are counted; afterwards the answer holds them.

    On the CPU what is alive at first are the tensors that Python knows, and what follows is what torch's
    allocator reports to its profiler. Memory of kernels outside of that allocator is in neither, nor is
    what the process needs for its code.
    """
    found = Allocated()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        found.start = torch.cuda.memory_allocated(device)
        yield found
        found.peak = torch.cuda.max_memory_allocated(device)
        return
    # What nobody reaches any more is not alive, and would go at some time in between.
    gc.collect()
    before = _Before()
    found.start = before.total
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        yield found
    found.peak = found.start + _highest([*before.freed, *_changes(profiled)])


@dataclass
class _Before:
    """The tensors that are there already, and when each of them goes."""

    total: int = 0
    freed: list[tuple[int, int]] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        seen = set()
        for tensor in [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]:
            for one in (tensor, tensor.grad if tensor.is_leaf else None):
                if one is not None and one.device.type == "cpu" and one.layout is torch.strided:
                    storage = one.untyped_storage()
                    if storage._cdata not in seen:
                        seen.add(storage._cdata)
                        self._watch(storage)

    def _watch(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.total += size
        freed = self.freed
        self.references.append(
            weakref.ref(storage, lambda _: freed.append((time.time_ns(), -size)))
        )


def _changes(profiled: profile) -> list[tuple[int, int]]:
    """Time in nanoseconds and bytes of each allocation, negative where its memory is given back. A mapped
    file that was there before also says when it goes, and is known already."""
    results: Any = profiled.profiler
    alive = _Alive()
    changes = []
    for event in _allocations(results.kineto_results.experimental_event_tree()):
        place, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        # What another thread gives back is seen when some of its place is taken again.
        before = alive.take(place, size) if size > 0 else alive.give_back(place)
        changes.append((event.start_time_ns, max(size, 0) - before))
    return changes


class _Alive:
    """Places in memory that are taken, by where they begin."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}

    def take(self, place: int, size: int) -> int:
        """Bytes that were there and must have gone, because memory is given to one at a time."""
        first = bisect_left(self.starts, place)
        if first and self.starts[first - 1] + self.sizes[self.starts[first - 1]] > place:
            first -= 1
        gone = self.starts[first : bisect_left(self.starts, place + size)]
        self.starts[first : first + len(gone)] = [place]
        freed = sum(self.sizes.pop(start) for start in gone)
        self.sizes[place] = size
        return freed

    def give_back(self, place: int) -> int:
        """Bytes that were taken there; 0 where they are known to have gone, or were never seen."""
        if place in self.sizes:
            del self.starts[bisect_left(self.starts, place)]
        return self.sizes.pop(place, 0)


def _allocations(events: list[Any]) -> Iterator[Any]:
    """Those of a tree of events, from first to last."""
    waiting, found = [*events], []
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        if event.typed[0] == _EventType.Allocation:
            found.append(event)
    yield from sorted(found, key=lambda event: event.start_time_ns)


def _highest(changes: list[tuple[int, int]]) -> int:
    """The most that a sum over time reaches."""
    total = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        total += size
        most = max(most, total)
    return most
