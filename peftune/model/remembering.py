"""What a layer keeps although it will be computed again for the backward pass: what took long.

Recomputing a whole layer costs its products once more. With their results kept, only norms, activations
and sums are computed again, which take little time and hold most of the memory (Korthikanti et al. 2022,
"Reducing activation recomputation in large transformer models", arXiv:2205.05198).
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Memory:
    """Results of one layer's forward pass, in their order."""

    results: deque[Any] = field(default_factory=deque)
    recalls: bool = False
    """Whether they are being taken out again."""


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextmanager
def with_memory(memory: Memory, recalls: bool) -> Iterator[None]:
    """Inside, `remembered` fills `memory`, or takes from it."""
    memory.recalls = recalls
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(compute: Callable[[], T]) -> T:
    """What `compute` returns, computed once even where a layer is computed twice."""
    memory = _memory.get()
    if memory is None:
        return compute()
    if memory.recalls:
        recalled: T = memory.results.popleft()
        return recalled
    result = compute()
    memory.results.append(result)
    return result
