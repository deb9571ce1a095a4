"""Inputs of adapted layers that are computed again from their own input, which is kept anyway.

A norm or an activation takes little time, and its result is kept by nobody but the layer that reads it:
the norm's own gradient needs what went into it. So the layer keeps that too, which costs nothing.
"""

from dataclasses import dataclass
from typing import Any

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
        vars(output)[MADE_BY] = module, source


def origin_of(x: torch.Tensor) -> tuple[Module | None, torch.Tensor]:
    """What to keep of an input: the module that made it and what it was made from, or `x` itself."""
    module, source = vars(x).get(MADE_BY, (None, x))
    # First tokens of padded rows would hold all of those.
    is_part = source.untyped_storage().nbytes() > 2 * source.nbytes
    return module, source.detach().clone() if is_part else source.detach()


@dataclass
class Again:
    """Computes inputs again, and keeps the last, which several layers may read."""

    key: tuple[Any, ...] = ()
    source: torch.Tensor | None = None
    """What it was made from, held on to so that no other tensor can take its place in memory."""
    made: torch.Tensor | None = None

    def made_by(self, module: Module | None, source: torch.Tensor) -> torch.Tensor:
        """The input that `origin_of` spoke of."""
        if module is None:
            return source
        key = id(module), source.data_ptr(), source._version, source.shape
        if self.made is None or self.key != key:
            with torch.no_grad():
                self.made = module.forward(source)
            self.key, self.source = key, source
        return self.made
