"""The header of a safetensors file, checked in full before anything maps the file into memory.

The format: eight bytes of length, a JSON object with type, shape and place of each tensor, and their
bytes, without gaps (https://github.com/huggingface/safetensors, README, "Format").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from peftune.errors import UnsafeFileError
from peftune.untrusted.json_file import parsed, shown

MAX_HEADER = 100_000_000
"""Bytes; the bound that the format's own library has."""
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}
"""Size of an element, by the format's names of types."""
LARGEST = 2**63 - 1
DIMENSIONS = 64
"""Of a tensor, at most; torch's own bound."""
ARCHIVES = {b"PK\3\4": "a zip archive, as torch.save writes", b"GGUF": "GGUF"}
ARCHIVES |= {bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)}
FLOATS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000)}
FLOATS |= {"F64": ("<u8", 0x7FF0000000000000)}
"""The unsigned type of the same size, and the bits that are all set in what is not finite."""
CHUNK = 2**22


@dataclass(frozen=True)
class Entry:
    """A tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Bytes from the end of the header; `end` likewise."""
    end: int


@dataclass(frozen=True)
class Header:
    """What is in a file, and where."""

    path: Path
    length: int
    """Bytes before the first tensor."""
    entries: Mapping[str, Entry]

    @property
    def elements(self) -> int:
        return sum(math.prod(entry.shape) for entry in self.entries.values())

    @property
    def largest_dimension(self) -> int:
        return max((size for one in self.entries.values() for size in one.shape), default=0)


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises UnsafeFileError where it is not as the format says."""
    found = path.stat()
    return _read_header(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_header(path: Path, size: int, changed: int) -> Header:
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise _unsound(path, _no_header(start, length, size))
        text = file.read(length)
    if text[:1] != b"{":
        raise _unsound(path, "its header is no JSON object")
    listed = parsed(text, f"The header of {path}")
    described = listed.pop("__metadata__", {})
    if not isinstance(described, dict) or not all(isinstance(v, str) for v in described.values()):
        raise _unsound(path, "its __metadata__ holds other things than texts")
    entries = {name: _entry(path, name, value) for name, value in listed.items()}
    _check_places(path, entries, size - 8 - length)
    return Header(path, 8 + length, entries)


def _no_header(start: bytes, length: int, size: int) -> str:
    if size < 8:
        return f"it has {size} bytes"
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            return f"it is {kind}"
    return f"it claims a header of {length:,} bytes, has {size:,}, and {MAX_HEADER:,} are allowed"


def _entry(path: Path, name: str, value: Any) -> Entry:
    """One tensor's line of the header."""
    tensor = f"its tensor {shown(name)}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _unsound(path, f"{tensor} is not described by dtype, shape and data_offsets")
    dtype, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _unsound(path, f"{tensor} has the unknown type {shown(dtype)}")
    if not _are_sizes(shape) or not _are_sizes(place) or len(place) != 2:
        raise _unsound(path, f"{tensor} has a shape or place that is no list of sizes")
    bits, claimed = math.prod(shape) * BITS[dtype], place[1] - place[0]
    if bits > LARGEST:
        raise _unsound(path, f"{tensor} has more elements than can be counted, {shown(shape)}")
    if bits != 8 * claimed:
        raise _unsound(
            path, f"{tensor} has {claimed:,} bytes, and {dtype} {shown(shape)} another number"
        )
    return Entry(dtype, tuple(shape), *place)


def _are_sizes(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > DIMENSIONS:
        return False
    return all(type(one) is int and 0 <= one <= LARGEST for one in value)


def _check_places(path: Path, entries: Mapping[str, Entry], size: int) -> None:
    """One tensor after the other, without overlap or gap, to the end of the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            how = "overlaps another" if entry.start < end else "leaves a gap before it"
            raise _unsound(path, f"its tensor {shown(name)} {how}")
        end = entry.end
    if end != size:
        raise _unsound(path, f"its tensors need {end:,} bytes, and it holds {size:,} for them")


def check_finite(header: Header) -> None:
    """Raise UnsafeFileError for a tensor with NaN or an infinite number. Reads in pieces."""
    with header.path.open("rb") as file:
        for name, entry in header.entries.items():
            if entry.dtype in FLOATS:
                file.seek(header.length + entry.start)
                if not _is_finite(file, *FLOATS[entry.dtype], math.prod(entry.shape)):
                    raise UnsafeFileError(
                        f"{header.path}: the tensor {shown(name)} holds NaN or infinite numbers, which "
                        "would spread through the whole model; do not use it."
                    )


def _is_finite(file: BinaryIO, unsigned: str, exponent: int, count: int) -> bool:
    import numpy as np

    while count:
        taken = min(count, CHUNK)
        bits = np.fromfile(file, unsigned, taken)
        if np.any((bits & bits.dtype.type(exponent)) == bits.dtype.type(exponent)):
            return False
        count -= taken
    return True


def _unsound(path: Path, reason: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} is no sound safetensors file: {reason}. Fetch it anew, or do not use it."
    )
