"""DeepSpeed ZeRO-1, -2 and -3, with or without offload, through `deepspeed.initialize`.

Accelerate reads the launcher's settings; the numbers are written here from the recipe, because
DeepSpeed's own defaults for accumulation and clipping differ from it and from version to version.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel

from peftune.engines.build_lock import require_no_abandoned_build
from peftune.engines.engine import (
    BuildOptimizer,
    StepShape,
    autocast,
    frozen_parameters,
    trainable_parameters,
)
from peftune.engines.launch import Launch
from peftune.engines.optimizer_state import (
    Tensors,
    by_parameter,
    load_scale,
    moment_name,
    on_cpu,
    scale_state,
)
from peftune.engines.ranks import Ranks

LARGEST_BUCKET = 500_000_000
"""DeepSpeed's own `reduce_bucket_size`, in numbers: 2 GB on every device, however small an adapter is."""


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

        if ranks.device.type == "cpu" and ranks.world_size > 1:
            require_no_abandoned_build()
        self.ranks, self.shape, self.stage = ranks, shape, int(launch.engine[-1])
        plugin = ranks.accelerator.state.deepspeed_plugin
        plugin.set_moe_leaf_modules(model)
        trained = trainable_parameters(model)
        self.model, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(trained),
            config=zero_config(plugin.deepspeed_config, shape, whole_numel(trained)),
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

    def optimizer_state(self) -> Tensors:
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        kept = self._kept_state()
        self._link_state()
        for name, parameter in trainable_parameters(self.module) if kept else ():
            for moment, value in kept.items():
                whole = (
                    value if value.dim() == 0 else safe_get_full_optimizer_state(parameter, moment)
                )
                if self.ranks.is_main:
                    found[moment_name(name, moment)] = on_cpu(whole)
        scaler = self.optimizer.torch_autocast_gradscaler
        return found | scale_state(scaler) if self.ranks.is_main else {}

    @torch.no_grad()
    def load_optimizer_state(self, state: Tensors) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        pieces = by_parameter(state)
        if pieces:
            self._make_state(next(iter(pieces.values())))
        for name, parameter in trainable_parameters(self.module) if pieces else ():
            for moment, value in pieces[name].items():
                if value.dim() == 0:
                    continue
                if self.stage < 3:
                    safe_set_full_optimizer_state(parameter, value, moment)
                else:
                    # The setter of whole tensors fails where the last shard is padded.
                    part = own_shard(value, vars(parameter)["ds_tensor"].numel(), self.ranks)
                    safe_set_local_optimizer_state(parameter, part, moment)
        load_scale(self.optimizer.torch_autocast_gradscaler, state)

    def _flat_parameters(self) -> list[torch.Tensor]:
        """What the optimizer inside DeepSpeed's steps on: this rank's part of each group."""
        if self.stage < 3:
            return list(self.optimizer.single_partition_of_fp32_groups)
        return list(self.optimizer.fp32_partitioned_groups_flat)

    def _kept_state(self) -> dict[str, torch.Tensor]:
        """The state of the first group; the others have the same kinds of pieces, in the same step."""
        return dict(self.optimizer.optimizer.state.get(self._flat_parameters()[0], {}))

    def _make_state(self, like: Tensors) -> None:
        """State of zeros in the step of `like`, one parameter's, where no step has made any yet."""
        for flat in self._flat_parameters():
            kept = self.optimizer.optimizer.state[flat]
            for moment, value in like.items():
                if value.dim() > 0:
                    kept.setdefault(moment, torch.zeros_like(flat))
                else:
                    kept.setdefault(moment, torch.zeros_like(value)).copy_(value)
        self._link_state()

    def _link_state(self) -> None:
        """Let each parameter find its part of the state. DeepSpeed links all groups after the step of the
        first, when the others have no state yet."""
        if self.stage < 3 and self._kept_state():
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()

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


def own_shard(value: torch.Tensor, size: int, ranks: Ranks) -> torch.Tensor:
    """The part of a whole tensor that stage 3 keeps on this rank, flat, its padding zero."""
    padded = value.new_zeros(size * ranks.world_size)
    padded[: value.numel()] = value.flatten()
    return padded[size * ranks.rank :][:size]


def whole_numel(parameters: list[tuple[str, torch.nn.Parameter]]) -> int:
    """Numbers in all of them, of those that stage 3 has cut up already, too."""
    return sum(vars(p).get("ds_numel", p.numel()) for _, p in parameters)


def zero_config(launched: dict[str, Any], shape: StepShape, trained: int) -> dict[str, Any]:
    """The launcher's DeepSpeed settings with the recipe's numbers written over them.

    `trained` is how many numbers have a gradient; no larger bucket is set aside for their exchange.
    """
    config = {
        **launched,
        "zero_optimization": {
            **launched["zero_optimization"],
            "reduce_bucket_size": max(1, min(LARGEST_BUCKET, trained)),
        },
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
