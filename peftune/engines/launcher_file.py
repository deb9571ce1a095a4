"""How many ranks a launcher's file asks for, and how they share memory; imports no torch.

`accelerate launch` and the ranks read the same file with Accelerate's own reader. What is read here is
only what a scheduler has to know before there are any ranks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peftune.engines.launch import Launch
from peftune.errors import LaunchError

SHIPPED = Path(__file__).resolve().parent.parent.parent / "accelerate_configs"
DEFAULT = SHIPPED / "cpu_ddp.yaml"
KINDS = ("NO", "MULTI_GPU", "DEEPSPEED", "FSDP")
CPU_IDS = "-1"


@dataclass(frozen=True)
class LauncherFile:
    """A file that `accelerate launch --config_file` takes."""

    path: Path
    machines: int
    processes: int
    """Of all machines together, as Accelerate counts them."""
    engine: str
    uses_gpus: bool
    offload: bool

    def launch(self, world_size: int) -> Launch:
        """What rank 0 will find, to check a recipe against."""
        return Launch(self.engine, world_size, 0, not self.uses_gpus, self.uses_gpus, self.offload)


def read_launcher_file(path: Path) -> LauncherFile:
    """Raises LaunchError for a file that is missing or no launcher's file."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{error.strerror}; accelerate_configs/ has some files"
        raise LaunchError(f"--config-file: {path} cannot be read: {reason}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LaunchError(f"--config-file: {path} is not YAML.") from error
    if not isinstance(tree, dict) or tree.get("distributed_type") not in KINDS:
        raise LaunchError(
            f"--config-file: {path}: distributed_type is not one of {', '.join(KINDS)}; take a file "
            "of accelerate_configs/ as a model."
        )
    return LauncherFile(
        path=path,
        machines=_count(tree, "num_machines", path),
        processes=_count(tree, "num_processes", path),
        engine=_engine(tree),
        uses_gpus=not tree.get("use_cpu") and not str(tree.get("gpu_ids")).startswith(CPU_IDS),
        offload=_offloads(tree),
    )


def _count(tree: dict[str, Any], key: str, path: Path) -> int:
    number = tree.get(key, 1)
    if not isinstance(number, int) or number < 1:
        raise LaunchError(f"--config-file: {path}: {key}: {number!r} is not a whole number ≥ 1.")
    return number


def _engine(tree: dict[str, Any]) -> str:
    if tree["distributed_type"] == "DEEPSPEED":
        return f"zero{(tree.get('deepspeed_config') or {}).get('zero_stage', 2)}"
    return "fsdp2" if tree["distributed_type"] == "FSDP" else "ddp"


def _offloads(tree: dict[str, Any]) -> bool:
    zero, fsdp = tree.get("deepspeed_config") or {}, tree.get("fsdp_config") or {}
    devices = (zero.get("offload_optimizer_device"), zero.get("offload_param_device"))
    return any(place not in (None, "none") for place in devices) or bool(
        fsdp.get("fsdp_offload_params")
    )
