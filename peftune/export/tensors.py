"""Writes safetensors files, and says what is wrong where the disk does not take them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from peftune.errors import StorageError, TrainingError
from peftune.records import storing


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises StorageError, and TrainingError for a tensor that is empty, as another rank's shard is."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise TrainingError(f"The tensor {name} is empty and was not saved.")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with storing(path, size):
        try:
            save_file(dict(tensors), path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise StorageError(
                f"{path} was not written: {error}; it needs {size:,} bytes."
            ) from error
