"""What a rank knows of its machine and of what it was told to do."""

import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from peftune import __version__
from peftune.data.encoded import cache_folder
from peftune.engines.launch import Launch
from peftune.environment import versions
from peftune.errors import ModelError
from peftune.preflight.memory import free_memory
from peftune.preflight.weights import Weights, bytes_in_memory, bytes_merged, weights_of
from peftune.recipe import Recipe
from peftune.resolved import resolved_yaml

PACKAGE = Path(__file__).resolve().parent.parent
SPARE = 20_000_000
"""Bytes of a disk that logs and tokens take in any case."""


@dataclass(frozen=True)
class Disk:
    """A place that is written to."""

    place: str
    free: int
    needed: int


@dataclass(frozen=True)
class Facts:
    """All plain values, so that one machine can read another's."""

    versions: dict[str, str]
    recipe: dict[str, str]
    """Each key with its value, as text."""
    weights: str
    """What the files of the base model hold; empty where they are still to be fetched."""
    weights_problem: str
    memory_free: int | None
    memory_needed: int
    disks: tuple[Disk, ...]
    gpu_problem: str = ""


def facts_of(recipe: Recipe, launch: Launch) -> Facts:
    """Look around; takes a fraction of a second."""
    weights, problem = _weights(recipe)
    parameters = weights.parameters if weights else 0
    on_gpu = launch.wants_gpu
    return Facts(
        versions={**versions(), "peftune": f"{__version__} ({code_digest()})"},
        recipe=_values(recipe),
        weights=weights.digest if weights else "",
        weights_problem=problem,
        # On a GPU the weights pass through the host a file at a time.
        memory_free=None if on_gpu else free_memory(),
        memory_needed=bytes_in_memory(recipe, parameters),
        disks=_disks(recipe, bytes_merged(recipe, parameters) if launch.rank == 0 else 0),
        gpu_problem=gpu_problem(bytes_in_memory(recipe, parameters), launch) if on_gpu else "",
    )


def _weights(recipe: Recipe) -> tuple[Weights | None, str]:
    try:
        return weights_of(recipe), ""
    except ModelError as error:
        return None, str(error)


def _values(recipe: Recipe) -> dict[str, str]:
    """The lines of the resolved recipe without their origins, which differ in nothing that counts."""
    lines = [line.partition("  #")[0] for line in resolved_yaml(recipe).splitlines()]
    section, found = "", dict[str, str]()
    for key, _, value in (line.partition(": ") for line in lines):
        if not value:
            section = key.strip(" :")
        inside = f"{section}." if key.startswith(" ") else ""
        found[inside + key.strip(" :")] = value.strip()
    return found


def code_digest() -> str:
    """Of peftune's own source, which may differ under one version number."""
    hashed = sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:12]


def _disks(recipe: Recipe, merged: int) -> tuple[Disk, ...]:
    needed = {existing(Path(recipe.output_dir)): merged + SPARE}
    needed.setdefault(existing(cache_folder()), SPARE)
    return tuple(
        Disk(str(place), shutil.disk_usage(place).free, bytes_) for place, bytes_ in needed.items()
    )


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if os.path.exists(place))


def gpu_problem(needed: int, launch: Launch) -> str:
    """What is wrong with the GPU of this rank, in words; empty when it computes and has room."""
    import torch

    local = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        ones = torch.ones(256, 256, device=f"cuda:{local}")
        wrong = bool((ones @ ones != 256).any())
        free, _ = torch.cuda.mem_get_info(local)
    except RuntimeError as error:
        return f"GPU {local} does not compute: {str(error).splitlines()[0]}"
    if wrong:
        return f"GPU {local} computes wrong products"
    # Sharded or offloaded weights take less than all of them.
    whole = not launch.sharded and not launch.offload
    if whole and free < needed:
        return f"GPU {local} has {free:,} bytes free and the weights alone take {needed:,}"
    return ""
