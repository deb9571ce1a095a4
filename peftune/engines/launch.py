"""What `accelerate launch` asked for, read from the environment it sets; imports no torch.

Source of the variables: accelerate's `utils/launch.py`.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from peftune.errors import LaunchError

JOB, RESTARTS = "PEFTUNE_JOB", "PEFTUNE_RESTARTS"
"""Variables that a job script sets."""
UNSET = ("no", "none", "auto", "false", "")
"""What the launcher hands on for a setting that nobody made."""


@dataclass(frozen=True)
class Claim:
    """A number that the recipe decides and the launcher has as well."""

    key: str
    """The recipe's key."""
    value: str
    place: str
    """The launcher's key, and the variable that it arrives in."""


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
    origins: Mapping[str, str] = field(default_factory=dict)
    """What decided each of these values: a variable with the launcher's key, or `default`."""
    claims: tuple[Claim, ...] = ()
    restarts: int = 0
    """How often the launcher, or the scheduler, has started these processes again."""
    job: str = ""
    """The scheduler's name for what these processes belong to, the same after a restart."""

    @property
    def sharded(self) -> bool:
        """Parameters are split over the ranks, so every rank must run every forward pass."""
        return self.engine in ("zero3", "fsdp2")

    @property
    def started_by(self) -> str:
        """The scheduler's job, or host and process that started this one; the same after a restart."""
        return self.job or f"{socket.gethostname()}:{os.getppid()}"


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Read the launcher's environment.

    Raises LaunchError for settings that no engine provides.
    """
    _refuse_unprovided(environ)
    _refuse_lost_ranks(environ)
    world_size = int(environ.get("WORLD_SIZE", "1"))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    use_cpu = asks_for_cpu(environ)
    engine = _engine(environ)
    several = world_size > 1 or engine != "ddp"
    return Launch(
        engine=engine,
        world_size=world_size,
        rank=int(environ.get("RANK", "0")),
        use_cpu=use_cpu,
        wants_gpu=not use_cpu and (several or visible is not None),
        offload=_offload(environ),
        origins=_origins(environ),
        claims=_claims(environ),
        restarts=int(environ.get(RESTARTS, environ.get("TORCHELASTIC_RESTART_COUNT", "0"))),
        job=environ.get(JOB, ""),
    )


def asks_for_cpu(environ: Mapping[str, str]) -> bool:
    """Whether a GPU is not to be used even where there is one."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and (not visible or visible.startswith("-1"))
    return hidden or _flag(environ, "ACCELERATE_USE_CPU")


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


def _refuse_unprovided(environ: Mapping[str, str]) -> None:
    """Settings that would change what is computed, and that no engine here reads."""
    for name, key in (
        ("ACCELERATE_DYNAMO_BACKEND", "dynamo_backend"),
        ("ACCELERATE_USE_MEGATRON_LM", "megatron_lm_config"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism_config"),
    ):
        value = environ.get(name, "")
        if value.lower() not in UNSET:
            raise LaunchError(
                f"accelerate config: {key} ({name}={value}) is read by no engine of peftune; remove it."
            )


DEEPSPEED, FSDP = "deepspeed_config", "fsdp_config"
CLAIMS = (
    ("train.mixed_precision", "mixed_precision", "ACCELERATE_MIXED_PRECISION"),
    (
        "train.gradient_accumulation_steps",
        f"{DEEPSPEED}.gradient_accumulation_steps",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    ),
    ("train.max_grad_norm", f"{DEEPSPEED}.gradient_clipping", "ACCELERATE_GRADIENT_CLIPPING"),
    (
        "train.gradient_checkpointing",
        f"{FSDP}.fsdp_activation_checkpointing",
        "FSDP_ACTIVATION_CHECKPOINTING",
    ),
)
"""Keys of the recipe, and the launcher's keys and variables for the same."""


def _claims(environ: Mapping[str, str]) -> tuple[Claim, ...]:
    # DeepSpeed's accumulation is 1 where nobody set it.
    unset = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (*UNSET, "1")}
    return tuple(
        Claim(key, environ[name].lower(), f"{launcher_key} ({name})")
        for key, launcher_key, name in CLAIMS
        if environ.get(name, "").lower() not in unset.get(name, UNSET)
    )


def _origins(environ: Mapping[str, str]) -> dict[str, str]:
    """By value of a Launch: the launcher's keys, and the variables that they arrive in."""
    decided = {
        "engine": {
            "ACCELERATE_USE_DEEPSPEED": "distributed_type: DEEPSPEED",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": f"{DEEPSPEED}.zero_stage",
            "ACCELERATE_USE_FSDP": "distributed_type: FSDP",
            "FSDP_VERSION": f"{FSDP}.fsdp_version",
        },
        "world_size": {"WORLD_SIZE": "num_processes"},
        "use_cpu": {"ACCELERATE_USE_CPU": "use_cpu", "CUDA_VISIBLE_DEVICES": "gpu_ids"},
        "offload": {
            "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": f"{DEEPSPEED}.offload_optimizer_device",
            "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": f"{DEEPSPEED}.offload_param_device",
            "FSDP_OFFLOAD_PARAMS": f"{FSDP}.fsdp_offload_params",
        },
    }
    return {
        value: ", ".join(
            f"{key} ({name}={environ[name]})" for name, key in names.items() if name in environ
        )
        or "default"
        for value, names in decided.items()
    }
