"""Accelerate's configuration file for a layout, written and read."""

from pathlib import Path
from typing import Any

import yaml

from peftune.engines.launch import Launch
from peftune.engines.launcher_file import read_launcher_file
from peftune.records import write_text

BACKEND = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}
ZERO = {
    "zero3_init_flag": False,
    "zero3_save_16bit_model": False,
    "deepspeed_multinode_launcher": "standard",
}
FSDP = {
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_activation_checkpointing": False,
}


def launcher_settings(launch: Launch, nodes: int) -> dict[str, Any]:
    """The content of the file, as those of `accelerate_configs/` are."""
    single = launch.world_size == 1 and launch.engine == "ddp"
    settings: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "main_training_function": "main",
        "distributed_type": "NO" if single else BACKEND.get(launch.engine, "DEEPSPEED"),
        "num_machines": nodes,
        "num_processes": launch.world_size,
        "use_cpu": False,
        "mixed_precision": "no",
        "same_network": True,
        "machine_rank": 0,
        "rdzv_backend": "c10d" if nodes > 1 else "static",
    }
    if launch.engine == "ddp":
        settings["gpu_ids"] = "0" if single else "all"
    elif launch.engine == "fsdp2":
        settings["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_reshard_after_forward": True,
            "fsdp_offload_params": launch.offload,
            **FSDP,
        }
    else:
        stage = int(launch.engine[-1])
        place = "cpu" if launch.offload else "none"
        settings["deepspeed_config"] = {
            "zero_stage": stage,
            "offload_optimizer_device": place,
            "offload_param_device": place if stage == 3 else "none",
            **ZERO,
        }
    return settings


def write_launcher_file(path: Path, launch: Launch, nodes: int) -> None:
    """Raises StorageError."""
    write_text(path, yaml.safe_dump(launcher_settings(launch, nodes), sort_keys=False))


def planned_layout(path: Path) -> tuple[Launch, int]:
    """The layout that a file asks for, on GPUs, and its nodes. Raises LaunchError."""
    file = read_launcher_file(path)
    return planned_launch(file.engine, file.processes, file.offload), file.machines


def planned_launch(engine: str, world_size: int, offload: bool = False) -> Launch:
    """A layout on GPUs."""
    return Launch(engine, world_size, 0, use_cpu=False, wants_gpu=True, offload=offload)
