"""What `accelerate launch` asked for, read from the environment it sets; imports no torch.

Source of the variables: accelerate's `utils/launch.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from peftune.errors import LaunchError


@dataclass(frozen=True)
class Launch:
    """The layout a person asked for."""

    engine: str
    """`ddp` (also one process), `zero1`, `zero2`, `zero3` or `fsdp2`."""
    world_size: int
    rank: int
    use_cpu: bool
    wants_gpu: bool
    offload: bool
    """Parameters or optimizer state live in host memory between uses."""

    @property
    def sharded(self) -> bool:
        """Parameters are split over the ranks, so every rank must run every forward pass."""
        return self.engine in ("zero3", "fsdp2")


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Read the launcher's environment.

    Raises LaunchError for settings that would change the recipe's numbers or that no engine provides.
    """
    _refuse_numbers(environ)
    _refuse_lost_ranks(environ)
    world_size = int(environ.get("WORLD_SIZE", "1"))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and (not visible or visible.startswith("-1"))
    use_cpu = hidden or _flag(environ, "ACCELERATE_USE_CPU")
    engine = _engine(environ)
    several = world_size > 1 or engine != "ddp"
    return Launch(
        engine=engine,
        world_size=world_size,
        rank=int(environ.get("RANK", "0")),
        use_cpu=use_cpu,
        wants_gpu=not use_cpu and (several or visible is not None),
        offload=_offload(environ),
    )


def check_device(launch: Launch, gpus: int) -> None:
    """Raise LaunchError when GPUs were asked for and there are none."""
    if launch.wants_gpu and gpus == 0:
        raise LaunchError(
            f"accelerate config: asks for GPUs ({launch.engine}, {launch.world_size} processes), but "
            "this machine has none. Use a file accelerate_configs/cpu*.yaml."
        )


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "false").lower() == "true"


def _engine(environ: Mapping[str, str]) -> str:
    if _flag(environ, "ACCELERATE_USE_DEEPSPEED"):
        return _zero_stage(environ)
    if _flag(environ, "ACCELERATE_USE_FSDP"):
        version = environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise LaunchError(
                f"accelerate config: fsdp_version: {version} is not supported; write fsdp_version: 2."
            )
        return "fsdp2"
    return "ddp"


def _zero_stage(environ: Mapping[str, str]) -> str:
    if "ACCELERATE_DEEPSPEED_CONFIG_FILE" in environ:
        raise LaunchError(
            "accelerate config: deepspeed_config_file can hold numbers that belong to the recipe; "
            "write zero_stage and the offload devices under deepspeed_config instead."
        )
    stage = environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2", "3"):
        raise LaunchError(f"accelerate config: zero_stage: {stage} is not one of 1, 2, 3.")
    return f"zero{stage}"


def _offload(environ: Mapping[str, str]) -> bool:
    deepspeed = ("OPTIMIZER", "PARAM")
    devices = [
        environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") for part in deepspeed
    ]
    return any(device != "none" for device in devices) or _flag(environ, "FSDP_OFFLOAD_PARAMS")


def _refuse_lost_ranks(environ: Mapping[str, str]) -> None:
    """MULTI_CPU without MPI starts a single process: only the address of the others is left."""
    if "MASTER_ADDR" in environ and "WORLD_SIZE" not in environ:
        raise LaunchError(
            "accelerate config: several processes were asked for and one was started; for CPU ranks "
            "use accelerate_configs/cpu_ddp.yaml (distributed_type: MULTI_GPU with gpu_ids: -1,-1)."
        )


def _refuse_numbers(environ: Mapping[str, str]) -> None:
    """Accumulation and clipping change the numbers, so only the recipe may set them."""
    accumulation = environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto"):
        raise LaunchError(
            f"accelerate config: gradient_accumulation_steps: {accumulation} stands in the launcher's "
            "file; remove it and set train.gradient_accumulation_steps or train.global_batch_size."
        )
    clipping = environ.get("ACCELERATE_GRADIENT_CLIPPING", "none")
    if clipping not in ("none", "auto"):
        raise LaunchError(
            f"accelerate config: gradient_clipping: {clipping} stands in the launcher's file; remove "
            "it and set train.max_grad_norm."
        )
