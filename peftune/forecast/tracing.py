"""Runs code of a training on tensors that have a shape and no memory, and counts what it would take.

Floating tensors are on the meta device. Whole numbers and masks are computed for real, because code asks
for their values: row lengths, places of learnt tokens, positions. So what is counted is what the code
of a training allocates, not what somebody believes that it does.
"""

import math
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from peftune.forecast.calls import Call, call_of
from peftune.forecast.kernels import Kernels
from peftune.model.devices import standing_for

aten = torch.ops.aten
REAL = (aten.arange, aten.linspace, aten.scalar_tensor)
"""They make numbers that code asks for, whatever their format."""
LARGEST_REAL = 2**24
"""Elements of whole numbers that are still computed for real; nothing asks larger ones for a value."""
GRADIENTS = "gradients"


@dataclass
class Peak:
    """The most bytes that were alive at a time, and of what."""

    total: int = 0
    parts: dict[str, int] = field(default_factory=dict)


class Trace(TorchDispatchMode):
    """Inside, tensors are planned; what is alive and what is computed is counted.

    `label` says what comes into being now. `kind` is the device that the run is planned for.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.label = kind, "weights"
        self.total, self.parts = 0, Counter[str]()
        self.peak = Peak()
        self.calls = Counter[Call]()
        self._alive: dict[int, list[Any]] = {}

    @contextmanager
    def phase(self, label: str) -> Iterator[Peak]:
        """Count anew: the peak and the calls of what happens inside, where new tensors are `label`."""
        before, self.label = self.label, label
        self.peak, self.calls = Peak(self.total, dict(self.parts)), Counter()
        try:
            yield self.peak
        finally:
            self.label = before

    def relabel(self, tensor: torch.Tensor, label: str) -> None:
        """`tensor` has become something else, such as a gradient."""
        entry = self._alive.get(tensor.untyped_storage()._cdata)
        if entry is not None:
            _, size, old = entry
            self.parts[old] -= size
            self.parts[label] += size
            entry[2] = label

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        planned = any(tensor.is_meta for tensor in given) or _is_planned(function, given, kwargs)
        if function is aten._local_scalar_dense.default and planned:
            return _value(given[0].dtype)
        if planned:
            function, args, kwargs = _on_meta(function, args, kwargs)
        elif "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        found = function(*args, **kwargs)
        if function is aten.native_layer_norm.default and self.kind == "cpu":
            found = _as_on_cpu(found, given)
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        fresh = [tensor for tensor in made if self._note(tensor)]
        if planned and (fresh or function._schema.is_mutable):
            self.calls[call_of(function, args, kwargs, made)] += 1
        return found

    def _note(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has memory that was not there before."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return False
        reference = weakref.ref(storage, lambda _: self._gone(key))
        self._alive[key] = [reference, size, self.label]
        self.total += size
        self.parts[self.label] += size
        if self.total > self.peak.total:
            self.peak.total, self.peak.parts = self.total, dict(self.parts)
        return True

    def _gone(self, key: int) -> None:
        _, size, label = self._alive.pop(key)
        self.total -= size
        self.parts[label] -= size


@contextmanager
def tracing(kind: str) -> Iterator[Trace]:
    """A Trace for a device, `cpu` or `cuda`, with the kernels that torch has there."""
    trace = Trace(kind)
    with standing_for(kind, Kernels(kind)), trace:
        yield trace


def _is_planned(function: Any, given: Sequence[torch.Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether a call without planned tensors makes one."""
    if given:
        return _broadcast(given) > LARGEST_REAL
    dtype = kwargs.get("dtype")
    floats = dtype is None or dtype.is_floating_point
    return floats and _chooses_device(function) and function.overloadpacket not in REAL


def _chooses_device(function: Any) -> bool:
    """Whether a function makes tensors where it is told to."""
    return any(argument.name == "device" for argument in function._schema.arguments)


def _broadcast(given: Sequence[torch.Tensor]) -> int:
    """Elements of what tensors of these shapes are together."""
    dims = max(tensor.dim() for tensor in given)
    sizes = [(1,) * (dims - tensor.dim()) + tuple(tensor.shape) for tensor in given]
    return math.prod(max(axis) for axis in zip(*sizes, strict=True))


def _value(dtype: torch.dtype) -> bool | float:
    """What code is told that asks a planned tensor for its value: it is neither zero nor infinite."""
    return False if dtype == torch.bool else 1.0


def _on_meta(function: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The same call with every tensor planned. To another device there is no way to go."""
    if function is aten._to_copy.default and kwargs.get("dtype") in (None, args[0].dtype):
        return aten.alias.default, args, {}
    if function.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
        args = (args[0], _as_places(args[1]), *args[2:])
    args, kwargs = tree_map(_planned, (args, kwargs))
    if "device" in kwargs or _chooses_device(function):
        kwargs = {**kwargs, "device": torch.device("meta")}
    return function, args, kwargs


def _as_on_cpu(found: tuple[torch.Tensor, ...], given: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """What a layer norm makes; the CPU keeps mean and deviation in the format of all it was given."""
    made, *statistics = found
    formats = {tensor.dtype for tensor in given}
    return made, *(one.to(made.dtype) if len(formats) == 1 else one for one in statistics)


def _as_places(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Masks as the places where they are true, whose number is the size of the result."""
    places: list[torch.Tensor | None] = []
    for index in indices:
        masks = index is not None and index.dtype is torch.bool and not index.is_meta
        places += list(index.nonzero().unbind(1)) if masks and index is not None else [index]
    return places


def _planned(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, torch.Tensor) and not leaf.is_meta else leaf
