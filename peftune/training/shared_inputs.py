"""Which adapted layers read the same input: a pass of a few tokens shows, in which no layer multiplies.

Queries, keys and values of an attention do, a gate and what it lets through, keys and values of what an
encoder made. What is found decides what is computed together, and nothing else: a layer that gets
another input computes alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn import Linear, Module
from transformers import PreTrainedModel

from peftune.training.randomness import streams_as_before

Calls = list[tuple[Module, torch.Tensor]]


@dataclass
class Together:
    """Layers that read the same input, in the order in which they are called."""

    layers: tuple[Any, ...]
    x: torch.Tensor | None = None
    """What the first of them was called with."""
    made: dict[int, torch.Tensor] = field(default_factory=dict)
    """What those that come after it will make of that, by their place."""

    def from_(self, layer: Any) -> tuple[Any, ...]:
        """A layer and those that are called after it."""
        return self.layers[self.layers.index(layer) :]

    def keep(self, x: torch.Tensor, results: Sequence[torch.Tensor]) -> None:
        """Keep what the last of the layers make of `x`, and nothing if that is none."""
        self.made = dict(enumerate(results, len(self.layers) - len(results)))
        self.x = x if results else None

    def taken(self, layer: Module, x: torch.Tensor) -> torch.Tensor | None:
        """What a layer makes of `x`, where that is known; it is given away."""
        found = self.made.pop(self.layers.index(layer), None) if x is self.x else None
        if not self.made:
            self.x = None
        return found


def layers_together(model: PreTrainedModel, layers: Sequence[Module]) -> list[Together]:
    """The `layers` of `model`, in groups that read the same input; alone where that cannot be told."""
    wanted = {*layers}
    calls = [call for call in calls_of(model, layers) if call[0] in wanted]
    parents = {child: module for module in model.modules() for child in module.children()}
    groups: dict[tuple[int, int], list[Module]] = {}
    seen: set[Module] = set()
    for layer, x in calls:
        if layer not in seen:
            groups.setdefault((id(parents[layer]), id(x)), []).append(layer)
        seen.add(layer)
    alone = [[layer] for layer in layers if layer not in seen]
    return [Together(tuple(group)) for group in [*groups.values(), *alone]]


def calls_of(model: PreTrainedModel, layers: Sequence[Module]) -> Calls:
    """Which of the `layers` is called with what, in a pass of a few tokens."""
    calls: Calls = []
    device = next(model.parameters()).device
    ids = {key: ids.to(device) for key, ids in model.dummy_inputs.items() if key.endswith("ids")}
    try:
        with torch.no_grad(), streams_as_before(device), multiplying_nothing(model, layers, calls):
            model(**ids)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # A model may want more than ids. Its layers are computed one by one.
        return []
    return calls


@contextmanager
def multiplying_nothing(
    model: PreTrainedModel, layers: Sequence[Module], calls: Calls
) -> Iterator[None]:
    """Inside, linear layers make zeros, so that no weight of theirs is read."""
    silent = [*layers, *(module for module in model.modules() if isinstance(module, Linear))]
    before = [vars(module).get("forward") for module in silent]
    for module in silent:
        vars(module)["forward"] = partial(zeros, module, calls)
    try:
        yield
    finally:
        for module, forward in zip(silent, before, strict=True):
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


def zeros(layer: Any, calls: Calls, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of a linear layer's forward."""
    calls.append((layer, x))
    return x.new_zeros(*x.shape[:-1], layer.out_features)
