"""One process, or data parallel ranks that each hold the whole model (CPU or GPU)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from peft import PeftModel

from peftune.engines.engine import (
    BuildOptimizer,
    StepShape,
    autocast,
    frozen_parameters,
    trainable_parameters,
)
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks


class Ddp:
    """torch's DistributedDataParallel; with one process, the plain model."""

    def __init__(
        self,
        ranks: Ranks,
        launch: Launch,
        model: PeftModel,
        build_optimizer: BuildOptimizer,
        shape: StepShape,
    ) -> None:
        self.ranks, self.shape = ranks, shape
        self.module = model.to(ranks.device)
        self.model = self._wrap() if ranks.world_size > 1 else self.module
        self.optimizer = build_optimizer(trainable_parameters(self.module))
        self.skips_overflow = shape.precision == "fp16"
        self.scaler = self._new_scaler()

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.ranks.device.type, enabled=self.skips_overflow)

    def _wrap(self) -> torch.nn.parallel.DistributedDataParallel:
        gpu = self.ranks.device.type == "cuda"
        return torch.nn.parallel.DistributedDataParallel(
            self.module,
            device_ids=[self.ranks.device.index] if gpu else None,
            broadcast_buffers=False,
        )

    def autocast(self) -> AbstractContextManager[None]:
        return autocast(self.ranks.device, self.shape.precision)

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self.model, torch.nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self._without_exchange(self.model)

    @contextmanager
    def _without_exchange(self, model: torch.nn.parallel.DistributedDataParallel) -> Iterator[None]:
        with model.no_sync():
            yield

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def gradients(self) -> dict[str, torch.Tensor]:
        scale = self.scaler.get_scale()
        return {
            name: p.grad.float().cpu() / scale
            for name, p in trainable_parameters(self.module)
            if p.grad is not None
        }

    def step(self) -> float:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for _, p in trainable_parameters(self.module)]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.shape.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def trainable_state(self) -> dict[str, torch.Tensor]:
        return {
            name: p.detach().float().cpu().clone() for name, p in trainable_parameters(self.module)
        }

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        for name, parameter in trainable_parameters(self.module):
            parameter.copy_(state[name])

    def restart(self, initial: dict[str, torch.Tensor]) -> None:
        self.load_trainable_state(initial)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.scaler = self._new_scaler()

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, p.detach()) for name, p in frozen_parameters(self.module))
