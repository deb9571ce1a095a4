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
    frozen_parameters,
    trainable_parameters,
)
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.engines.torch_step import TorchStep


class Fsdp2(TorchStep):
    """Parameters, gradients and optimizer state split over the ranks, layer by layer."""

    def __init__(
        self,
        ranks: Ranks,
        launch: Launch,
        model: PeftModel,
        build_optimizer: BuildOptimizer,
        shape: StepShape,
    ) -> None:
        super().__init__(ranks, shape)
        shard_layers(model.to(ranks.device), ranks, launch.offload)
        self.model = self.module = model
        # The optimizer must hold the shards, so it is built after them.
        self.optimizer = build_optimizer(trainable_parameters(model))

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        self.model.set_requires_gradient_sync(last)
        return nullcontext()

    def _reshard(self) -> None:
        """The root keeps its parameters whole after a forward pass."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        self._reshard()
        return super().learning()

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        for name, shards in self.learning():
            assert isinstance(shards, DTensor)
            full = state[name].to(shards.device)
            shards.copy_(distribute_tensor(full, shards.device_mesh, shards.placements))

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._reshard()
        for name, parameter in frozen_parameters(self.module):
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            yield name, local.detach()


def shard_layers(model: PeftModel, ranks: Ranks, offload: bool) -> None:
    """Shard each decoder layer by itself and the rest with the root."""
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    policy = CPUOffloadPolicy() if offload else OffloadPolicy()
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    layer_classes = set(base._no_split_modules or ())
    # Embeddings stay with the root: an output layer outside of them may share their weight.
    embedding = base.get_input_embeddings()
    for module in list(model.modules()):
        is_layer = type(module).__name__ in layer_classes and embedding not in module.modules()
        if is_layer and not isinstance(module, FSDPModule):
            fully_shard(module, mesh=mesh, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)
