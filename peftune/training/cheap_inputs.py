"""Inputs of adapted layers that are computed again from their own input, which is kept anyway.

A norm or an activation takes little time, and its result is kept by nobody but the layer that reads it:
the norm's own gradient needs what went into it. So the layer keeps that too, which costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import Identity, Module, ReLU, Sigmoid, Softmax, Tanh

MADE_BY = "_peftune_made_by"
KEEP_RESULT = (Identity, ReLU, Sigmoid, Softmax, Tanh)
"""Their own gradients need what they make, so it is kept anyway."""


def remember_origins(model: Module) -> int:
    """Let the norms and activations of `model` leave their names on what they make; how many do."""
    cheap = [module for module in model.modules() if is_cheap(module)]
    for module in cheap:
        module.register_forward_hook(leave_name)
    return len(cheap)


def is_cheap(module: Module) -> bool:
    """Whether a module computes place by place, or a norm: frozen vectors and nothing else in it."""
    parameters, inside = [*module.parameters()], [*module.children(), *module.buffers()]
    is_random = "Dropout" in type(module).__name__
    plain = not (inside or is_random or isinstance(module, KEEP_RESULT))
    return plain and all(p.dim() == 1 and not p.requires_grad for p in parameters)


def leave_name(module: Module, args: tuple[Any, ...], output: Any) -> None:
    """After such a module: its output knows where it came from."""
    if len(args) != 1 or not isinstance(output, torch.Tensor) or output is args[0]:
        return
    source = args[0]
    if output.requires_grad and output.shape == source.shape and output.dtype == source.dtype:
        name_origin(output, module.forward, source)


class Origin(NamedTuple):
    """How an input is had again."""

    made_by: Callable[..., torch.Tensor] | None
    """What makes it of its sources; None where it is kept itself."""
    sources: tuple[torch.Tensor, ...]


def name_origin(
    made: torch.Tensor, made_by: Callable[..., torch.Tensor], *sources: torch.Tensor
) -> None:
    """Note what `made` was made from."""
    vars(made)[MADE_BY] = Origin(made_by, sources)


def origin_of(x: torch.Tensor) -> Origin:
    """What to keep of an input: what it was made from, or `x` itself."""
    made_by, sources = vars(x).get(MADE_BY, Origin(None, (x,)))
    return Origin(made_by, tuple(_alone(source.detach()) for source in sources))


def _alone(source: torch.Tensor) -> torch.Tensor:
    """First tokens of padded rows would hold all of those."""
    is_part = source.untyped_storage().nbytes() > 2 * source.nbytes
    return source.clone() if is_part else source


@dataclass
class Again:
    """Computes inputs again, and keeps the last, which several layers may read."""

    key: tuple[Any, ...] = ()
    sources: tuple[torch.Tensor, ...] = ()
    """What it was made from, held on to so that no other tensor can take its place in memory."""
    made: torch.Tensor | None = None

    def input_of(
        self, made_by: Callable[..., torch.Tensor] | None, *sources: torch.Tensor
    ) -> torch.Tensor:
        """The input that `origin_of` spoke of."""
        if made_by is None:
            return sources[0]
        key = made_by, *((one.data_ptr(), one._version, one.shape) for one in sources)
        if self.made is None or self.key != key:
            with torch.no_grad():
                self.made = made_by(*sources)
            self.key, self.sources = key, sources
        return self.made
