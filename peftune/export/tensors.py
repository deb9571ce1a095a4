"""Writes safetensors files, and says what is wrong where the disk does not take them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from peftune.errors import StorageError, TrainingError
from peftune.records import storing


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """What the tensors take on a disk."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextmanager
def storing_tensors(path: Path, tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Inside, tensors are written to `path`; an error of the system becomes a StorageError."""
    size = bytes_of(tensors)
    with storing(path, size):
        try:
            yield
        except SafetensorError as error:
            reason = f"{path} was not written: {error}; it needs {size:,} bytes."
            raise StorageError(reason) from error


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises StorageError, and TrainingError for a tensor that is empty, as another rank's shard is."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise TrainingError(f"The tensor {name} is empty and was not saved.")
    with storing_tensors(path, tensors.values()):
        save_file(dict(tensors), path, metadata={"format": "pt"})
