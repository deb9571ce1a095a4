"""What the base model's weight files hold, told from their headers."""

import json
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from peftune.errors import ModelError
from peftune.model.location import is_local, model_location
from peftune.recipe import Recipe

PATTERN = "*.safetensors"
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "bnb-int8": 1.0}
FOUR_BITS = 0.5


@dataclass(frozen=True)
class Weights:
    """The files of a model, without their tensors."""

    files: int
    parameters: int
    digest: str
    """Of names, sizes and headers: another model or another half of a download has another one."""


def weights_of(recipe: Recipe) -> Weights | None:
    """None for a model of the Hub that is still to be fetched. Raises ModelError where there are none."""
    folder = weights_folder(recipe)
    if folder is None:
        return None
    hashed, parameters, files = sha256(), 0, sorted(folder.glob(PATTERN))
    for file in files:
        header = read_header(file)
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        parameters += sum(prod(tensor["shape"]) for tensor in tensors)
        hashed.update(f"{file.name} {file.stat().st_size} {json.dumps(tensors)}\n".encode())
    if not files:
        raise ModelError(f"{folder} holds no weights (*.safetensors); copy them there.")
    return Weights(len(files), parameters, hashed.hexdigest())


def weights_folder(recipe: Recipe) -> Path | None:
    """Where the files are; None where they are not here yet. Raises ModelError for an unknown place."""
    if is_local(recipe.model):
        return Path(model_location(recipe.model))
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, revision = recipe.model.model_name_or_path, recipe.model.revision
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=[PATTERN], local_files_only=True
        )
    except LocalEntryNotFoundError as error:
        if not constants.HF_HUB_OFFLINE:
            return None
        raise ModelError(
            f"{name} is not in the cache of the Hub, and HF_HUB_OFFLINE is set."
        ) from error
    return Path(found)


def read_header(file: Path) -> dict[str, Any]:
    """The JSON at the beginning of a safetensors file. Raises ModelError for a file that is cut off."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(min(length, file.stat().st_size))
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{file} is cut off or no safetensors file; copy it again.") from error
    end = max(
        (entry["data_offsets"][1] for entry in header.values() if "shape" in entry), default=0
    )
    if 8 + length + end != file.stat().st_size:
        raise ModelError(f"{file} has not all of its bytes; copy it again.")
    return header


def bytes_in_memory(recipe: Recipe, parameters: int) -> int:
    """The least that the frozen weights take on one rank."""
    method = recipe.quantization.method if recipe.quantization else recipe.model.dtype
    return int(parameters * BYTES.get(method, FOUR_BITS))


def bytes_merged(recipe: Recipe, parameters: int) -> int:
    """What the merged model takes on the disk of rank 0; nothing where none is written."""
    return int(parameters * BYTES[recipe.model.dtype]) if recipe.export.merge else 0
