"""DeepSpeed ZeRO-1, -2 and -3, with or without offload, through `deepspeed.initialize`.

Accelerate reads the launcher's settings; the numbers are written here from the recipe, because
DeepSpeed's own defaults for accumulation and clipping differ from it and from version to version.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

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


class DeepSpeedZero:
    """A DeepSpeedEngine; the step happens inside it, so clipping is configured, not called."""

    def __init__(
        self,
        ranks: Ranks,
        launch: Launch,
        model: PeftModel,
        build_optimizer: BuildOptimizer,
        shape: StepShape,
    ) -> None:
        import deepspeed

        self.ranks, self.shape, self.stage = ranks, shape, int(launch.engine[-1])
        plugin = ranks.accelerator.state.deepspeed_plugin
        plugin.set_moe_leaf_modules(model)
        self.model, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(trainable_parameters(model)),
            config=zero_config(plugin.deepspeed_config, shape),
        )
        self.module = self.model.module
        self.skips_overflow = shape.precision == "fp16"

    def autocast(self) -> AbstractContextManager[None]:
        # DeepSpeedEngine.forward applies its own torch_autocast; this covers calls of the module.
        return autocast(self.ranks.device, self.shape.precision)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.model.set_gradient_accumulation_boundary(is_boundary=last)
        yield

    def backward(self, loss: torch.Tensor) -> None:
        # The loop has already divided by the step's tokens, not by its micro-batches.
        self.model.backward(loss, scale_wrt_gas=False)

    def gradients(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_grad

        found = {name: safe_get_full_grad(p) for name, p in trainable_parameters(self.module)}
        return {name: grad.float().cpu() for name, grad in found.items() if grad is not None}

    def step(self) -> float:
        self.model.step()
        return float(self.model.get_global_grad_norm())

    def trainable_state(self) -> dict[str, torch.Tensor]:
        parameters = trainable_parameters(self.module)
        with self._gathered([p for _, p in parameters], modifier_rank=None):
            return {name: p.detach().float().cpu().clone() for name, p in parameters}

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        parameters = trainable_parameters(self.module)
        with self._gathered([p for _, p in parameters], modifier_rank=0):
            for name, parameter in parameters:
                parameter.copy_(state[name])

    @torch.no_grad()
    def restart(self, initial: dict[str, torch.Tensor]) -> None:
        self.load_trainable_state(initial)
        # DeepSpeed steps on copies of the parameters and keeps references to the optimizer's state.
        self.optimizer.refresh_fp32_params()
        for state in self.optimizer.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        scaler = self.optimizer.torch_autocast_gradscaler
        if scaler is not None:
            scaler.load_state_dict(torch.amp.GradScaler(self.ranks.device.type).state_dict())

    def frozen_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in frozen_parameters(self.module):
            # What stage 3 leaves in the parameter itself may be empty.
            yield name, (vars(parameter)["ds_tensor"] if self.stage == 3 else parameter).detach()

    def _gathered(
        self, parameters: list[torch.nn.Parameter], modifier_rank: int | None
    ) -> AbstractContextManager[None]:
        if self.stage < 3:
            return nullcontext()
        from deepspeed import zero

        return zero.GatheredParameters(parameters, modifier_rank=modifier_rank)


def zero_config(launched: dict[str, Any], shape: StepShape) -> dict[str, Any]:
    """The launcher's DeepSpeed settings with the recipe's numbers written over them."""
    config = {
        **launched,
        "train_micro_batch_size_per_gpu": shape.per_device_batch_size,
        "gradient_accumulation_steps": shape.micro_batches,
        "gradient_clipping": shape.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        # Offload would otherwise swap the recipe's optimizer for DeepSpeed's own.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    for key in ("train_batch_size", "fp16", "bf16"):
        config.pop(key, None)
    if shape.precision != "no":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[shape.precision]
        # Casting the whole model would also round the adapter; autocast leaves it in float32.
        config["torch_autocast"] = {"enabled": True, "dtype": dtype}
    return config
