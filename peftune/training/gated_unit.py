"""Gated linear units (Shazeer 2020, arXiv:2002.05202) between their layers, as one function that keeps
what the layers made and nothing else: autograd keeps the activation and the product beside it.

Models have classes of their own for it. One of a few numbers shows whether a class computes what is
computed here. T tokens, N width.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch.nn import Linear, functional
from torch.nn.utils import skip_init

from peftune.model.devices import autocast_dtype
from peftune.model.one_kernel import in_one_kernel
from peftune.model.trial import tried
from peftune.training.cheap_inputs import name_origin

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What transformers calls the layers of such a unit."""
TRIED = 8
aten = torch.ops.aten


def serve(model: torch.nn.Module) -> int:
    """Let the gated units of a model compute here what their classes compute; their number."""
    count = 0
    for module in model.modules():
        made_by = shown(module)
        if made_by is not None:
            # On the instance: adapters and engines keep seeing the module that they know.
            vars(module)["forward"] = partial(forward, module, made_by)
            count += 1
    return count


def shown(module: torch.nn.Module) -> Any:
    """What a module computes between its layers, if it is such a unit and nothing else."""
    if {name for name, _ in module.named_children()} != {*PARTS} or "forward" in vars(module):
        return None
    return tried(partial(_kind_tried, module))


def _kind_tried(module: torch.nn.Module) -> Any:
    """With layers of a few numbers and one input."""
    small, x = small_like(module), torch.linspace(-3.0, 3.0, 2 * TRIED).view(2, TRIED)
    said = type(module).forward(small, x)
    gate, up = small.gate_proj(x), small.up_proj(x)
    return next((f for f in KINDS if torch.allclose(said, small.down_proj(f(gate, up)))), None)


def small_like(module: torch.nn.Module) -> Any:
    """The same class and activation with layers of a few numbers."""
    small: Any = copy.copy(module)
    # Without numbers of its own: nobody's random stream moves.
    layers: dict[str, Any] = {
        name: skip_init(Linear, TRIED, TRIED, bias=False) for name in PARTS[:3]
    }
    for step, layer in enumerate(layers.values(), start=1):
        torch.nn.init.eye_(layer.weight).mul_(1.0 / step).add_(0.1 / step)
    vars(small)["_modules"] = {**layers, "act_fn": module.get_submodule("act_fn")}
    return small


def forward(module: Any, made_by: Any, x: torch.Tensor) -> torch.Tensor:
    """In place of the unit's forward."""
    if autocast_dtype(x) is not None:
        unserved: torch.Tensor = type(module).forward(module, x)
        return unserved
    gate, up = module.gate_proj(x), module.up_proj(x)
    made = _GatedUnit.apply(gate, up, made_by)
    if made.requires_grad:
        name_origin(made, made_by, gate, up)
    result: torch.Tensor = module.down_proj(made)
    return result


@in_one_kernel
def by_silu(gate_TN: torch.Tensor, up_TN: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate_TN) * up_TN


@in_one_kernel
def by_gelu(gate_TN: torch.Tensor, up_TN: torch.Tensor) -> torch.Tensor:
    return functional.gelu(gate_TN) * up_TN


@in_one_kernel
def by_tanh_gelu(gate_TN: torch.Tensor, up_TN: torch.Tensor) -> torch.Tensor:
    return functional.gelu(gate_TN, approximate="tanh") * up_TN


@in_one_kernel
def silu_gradients(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return aten.silu_backward(grad * up, gate), grad * functional.silu(gate)


@in_one_kernel
def gelu_gradients(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return aten.gelu_backward(grad * up, gate), grad * functional.gelu(gate)


@in_one_kernel
def tanh_gelu_gradients(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    slope = aten.gelu_backward(grad * up, gate, approximate="tanh")
    return slope, grad * functional.gelu(gate, approximate="tanh")


KINDS: dict[Any, Any] = {
    by_silu: silu_gradients,
    by_gelu: gelu_gradients,
    by_tanh_gelu: tanh_gelu_gradients,
}
"""What is computed, and its gradients by the gate and by what passes it."""


class _GatedUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, made_by: Any) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.gradients = KINDS[made_by]
        made: torch.Tensor = made_by(gate, up)
        return made

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *ctx.gradients(grad, *ctx.saved_tensors), None
