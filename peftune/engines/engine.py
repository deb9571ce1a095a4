"""What the train loop asks of an engine.

Contract: after the `backward` calls of a step, each trainable parameter's gradient is the gradient
of the mean over ranks of the sum over micro-batches of the loss, with no other scaling.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from peft import PeftModel

from peftune.engines.ranks import Ranks

Precision = Literal["no", "bf16", "fp16"]
BuildOptimizer = Callable[[list[tuple[str, torch.nn.Parameter]]], torch.optim.Optimizer]
AUTOCAST_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepShape:
    """The plain numbers of a step that engines need before they start."""

    micro_batches: int
    per_device_batch_size: int
    max_grad_norm: float
    precision: Precision


class Engine(Protocol):
    """One wrapped model and its optimizer."""

    ranks: Ranks
    model: torch.nn.Module
    """What the train loop calls."""
    module: PeftModel
    """The adapter model itself, for validation and generation."""
    optimizer: torch.optim.Optimizer
    skips_overflow: bool
    """True when the optimizer skips a step whose scaled gradients overflowed (fp16)."""

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of a forward pass."""

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward pass; gradients are exchanged in the last of a step."""

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of `loss`."""

    def gradients(self) -> dict[str, torch.Tensor]:
        """Full gradients of the step by parameter, float32 on the CPU of every rank, as they are
        between its last `backward` and `step`; parameters that got none are missing. A collective."""

    def step(self) -> float:
        """Clip, update, clear; returns the gradient norm before clipping."""

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Full trainable parameters by name, float32 on the CPU of every rank; a collective."""

    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the trainable parameters, for evaluation; a collective."""

    def restart(self, initial: dict[str, torch.Tensor]) -> None:
        """Go back, bit for bit, to the trainable parameters `initial` and to an optimizer that has taken
        no step. Call it after `step`, not between `backward` and `step`; a collective."""

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Full optimizer state by the names of `optimizer_state.py`, and in fp16 the loss scale: on the
        CPU of rank 0, empty on the others, and empty before the first step; a collective."""

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `optimizer_state` gave, of this or another engine, whole on every rank. Call it
        after `restart`; a collective."""

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and this rank's part of every weight that does not learn."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The same autocast on every engine, so that an engine never changes the precision."""
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision], enabled=precision != "no")


def trainable_parameters(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of everything that learns, in the model's order."""
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def frozen_parameters(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Name and parameter of everything that does not learn, in the model's order."""
    return ((name, p) for name, p in module.named_parameters() if not p.requires_grad)
