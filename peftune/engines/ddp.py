"""One process, or data parallel ranks that each hold the whole model (CPU or GPU)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from peft import PeftModel

from peftune.engines.engine import (
    BuildOptimizer,
    StepShape,
    frozen_parameters,
    trainable_parameters,
)
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.engines.torch_step import TorchStep


class Ddp(TorchStep):
    """torch's DistributedDataParallel; with one process, the plain model."""

    def __init__(
        self,
        ranks: Ranks,
        launch: Launch,
        model: PeftModel,
        build_optimizer: BuildOptimizer,
        shape: StepShape,
    ) -> None:
        super().__init__(ranks, shape)
        self.module = model.to(ranks.device)
        self.model = self._wrap() if ranks.world_size > 1 else self.module
        self.optimizer = build_optimizer(trainable_parameters(self.module))

    def _wrap(self) -> torch.nn.parallel.DistributedDataParallel:
        gpu = self.ranks.device.type == "cuda"
        return torch.nn.parallel.DistributedDataParallel(
            self.module,
            device_ids=[self.ranks.device.index] if gpu else None,
            broadcast_buffers=False,
        )

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self.model, torch.nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self._without_exchange(self.model)

    @contextmanager
    def _without_exchange(self, model: torch.nn.parallel.DistributedDataParallel) -> Iterator[None]:
        with model.no_sync():
            yield

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        for name, parameter in trainable_parameters(self.module):
            parameter.copy_(state[name])

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, p.detach()) for name, p in frozen_parameters(self.module))
