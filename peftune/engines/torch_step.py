"""What engines share whose parameters and optimizer are torch's own, whole or in shards."""

from contextlib import AbstractContextManager

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor

from peftune.engines.engine import StepShape, autocast, trainable_parameters
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
        parameters = [p for _, p in trainable_parameters(self.module)]
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

    def learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Name and parameter of everything that learns, in the form that the optimizer holds."""
        return trainable_parameters(self.module)

    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        raise NotImplementedError


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All shards as one; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
