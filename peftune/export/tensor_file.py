"""A safetensors file, written tensor by tensor, so that one is in memory at a time.

The format: eight bytes of length, a JSON header with name, type, shape and place of each tensor, and
their bytes in that order (https://github.com/huggingface/safetensors, README, "Format").
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from peftune.errors import PeftuneError
from peftune.records import storing

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format calls torch's types."""
ALIGNMENT = 8


class TensorFile:
    """A file of tensors whose shapes and types are known beforehand: `shapes` are tensors without
    data, in the order in which they will be written.

    Use it as a context; tensors that are missing at its end are an error. Raises StorageError.
    """

    def __init__(self, path: Path, shapes: Mapping[str, torch.Tensor]) -> None:
        self.path, self.waiting = path, [*shapes.items()]
        self.size = sum(one.numel() * one.element_size() for one in shapes.values())

    def __enter__(self) -> "TensorFile":
        with storing(self.path, self.size):
            self.file = self.path.open("wb")
            self.file.write(header(dict(self.waiting)))
        return self

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """The next tensor."""
        expected, shape = self.waiting.pop(0)
        if name != expected or tensor.shape != shape.shape or tensor.dtype != shape.dtype:
            raise PeftuneError(
                f"{self.path}: {name} {tuple(tensor.shape)} {tensor.dtype} came where {expected} "
                f"{tuple(shape.shape)} {shape.dtype} belongs."
            )
        if not tensor.numel():
            raise PeftuneError(f"{self.path}: the tensor {name} is empty.")
        flat: Any = tensor.contiguous().flatten().view(torch.uint8).numpy()
        with storing(self.path, self.size):
            self.file.write(flat)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        with self.file, storing(self.path, self.size):
            self.file.flush()
            os.fsync(self.file.fileno())
        if error is None and self.waiting:
            raise PeftuneError(f"{self.path}: {self.waiting[0][0]} was not written.")


def header(shapes: Mapping[str, torch.Tensor]) -> bytes:
    """Length and JSON; spaces at its end keep what follows aligned."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + shape.numel() * shape.element_size()
        entries[name] = {
            "dtype": NAMES[shape.dtype],
            "shape": [*shape.shape],
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
