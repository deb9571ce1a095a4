"""What engines share whose parameters and optimizer are torch's own, whole or in shards."""

from contextlib import AbstractContextManager

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor, distribute_tensor

from peftune.engines.engine import StepShape, autocast, trainable_parameters
from peftune.engines.optimizer_state import (
    Tensors,
    by_parameter,
    load_scale,
    moment_name,
    on_cpu,
    scale_state,
)
from peftune.engines.ranks import Ranks


class TorchStep:
    """Backward pass and step of an `Engine`, with loss scaling in fp16."""

    ranks: Ranks
    module: PeftModel
    optimizer: torch.optim.Optimizer

    def __init__(self, ranks: Ranks, shape: StepShape) -> None:
        self.ranks, self.shape = ranks, shape
        self.skips_overflow = shape.precision == "fp16"
        self.scaler = self._new_scaler()

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.ranks.device.type, enabled=self.skips_overflow)

    def autocast(self) -> AbstractContextManager[None]:
        return autocast(self.ranks.device, self.shape.precision)

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def gradients(self) -> dict[str, torch.Tensor]:
        scale = self.scaler.get_scale()
        return {
            name: full_tensor(p.grad).float().cpu() / scale
            for name, p in self.learning()
            if p.grad is not None
        }

    def step(self) -> float:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.shape.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return float(full_tensor(norm))

    def trainable_state(self) -> dict[str, torch.Tensor]:
        return {name: full_tensor(p).detach().float().cpu().clone() for name, p in self.learning()}

    def restart(self, initial: dict[str, torch.Tensor]) -> None:
        self.load_trainable_state(initial)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.scaler = self._new_scaler()

    def optimizer_state(self) -> Tensors:
        found = {}
        for name, parameter in self.learning():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                whole = full_tensor(value)
                if self.ranks.is_main:
                    found[moment_name(name, moment)] = on_cpu(whole)
        return found | scale_state(self.scaler) if self.ranks.is_main else {}

    def load_optimizer_state(self, state: Tensors) -> None:
        names = {parameter: name for name, parameter in self.learning()}
        held = [names[p] for group in self.optimizer.param_groups for p in group["params"]]
        parameters, pieces = dict(self.learning()), by_parameter(state)
        own = {
            index: {key: own_part(value, parameters[name]) for key, value in pieces[name].items()}
            for index, name in enumerate(held)
            if name in pieces
        }
        # torch brings dtypes and devices in order; its form numbers the parameters of all groups.
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": own})
        load_scale(self.scaler, state)

    def learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Name and parameter of everything that learns, in the form that the optimizer holds."""
        return trainable_parameters(self.module)

    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        raise NotImplementedError


def own_part(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor | int:
    """What this rank's optimizer keeps of `value`: its shard of a moment, a whole number as Python's."""
    if value.dim() == 0 and not value.is_floating_point():
        return int(value)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(value.to(parameter.device), mesh, placements)
    return value.clone()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All shards as one; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
