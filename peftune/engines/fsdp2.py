"""PyTorch's fully_shard (FSDP2), on GPUs and, for tests and small machines, on CPU ranks.

Accelerate ignores an FSDP configuration on CPU ranks without a word; sharding here instead of in
`Accelerator.prepare` gives what was asked for on both.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from peftune.engines.engine import (
    BuildOptimizer,
    StepShape,
    autocast,
    frozen_parameters,
    trainable_parameters,
)
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks


class Fsdp2:
    """Parameters, gradients and optimizer state split over the ranks, layer by layer."""

    def __init__(
        self,
        ranks: Ranks,
        launch: Launch,
        model: PeftModel,
        build_optimizer: BuildOptimizer,
        shape: StepShape,
    ) -> None:
        self.ranks, self.shape = ranks, shape
        shard_layers(model.to(ranks.device), ranks, launch.offload)
        self.model = self.module = model
        # The optimizer must hold the shards, so it is built after them.
        self.optimizer = build_optimizer(trainable_parameters(model))
        self.skips_overflow = shape.precision == "fp16"
        self.scaler = self._new_scaler()

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.ranks.device.type, enabled=self.skips_overflow)

    def autocast(self) -> AbstractContextManager[None]:
        return autocast(self.ranks.device, self.shape.precision)

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        self.model.set_requires_gradient_sync(last)
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def gradients(self) -> dict[str, torch.Tensor]:
        scale = self.scaler.get_scale()
        return {
            name: full_tensor(shards.grad).float().cpu() / scale
            for name, shards in self._shards().items()
            if shards.grad is not None
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
        return {
            name: shards.full_tensor().detach().float().cpu()
            for name, shards in self._shards().items()
        }

    def _reshard(self) -> None:
        """The root keeps its parameters whole after a forward pass."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _shards(self) -> dict[str, DTensor]:
        self._reshard()
        parameters = trainable_parameters(self.module)
        return {name: p for name, p in parameters if isinstance(p, DTensor)}

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        for name, shards in self._shards().items():
            full = state[name].to(shards.device)
            shards.copy_(distribute_tensor(full, shards.device_mesh, shards.placements))

    def restart(self, initial: dict[str, torch.Tensor]) -> None:
        self.load_trainable_state(initial)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.scaler = self._new_scaler()

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._reshard()
        for name, parameter in frozen_parameters(self.module):
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            yield name, local.detach()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All shards as one; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_layers(model: PeftModel, ranks: Ranks, offload: bool) -> None:
    """Shard each decoder layer by itself and the rest with the root."""
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = CPUOffloadPolicy() if offload else OffloadPolicy()
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    layer_classes = set(base._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layer_classes and not isinstance(module, FSDPModule):
            fully_shard(module, mesh=mesh, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)
