"""What the folder of a base model may hold, and what its configuration may ask for."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peftune.errors import UnsafeFileError
from peftune.untrusted.files import check_name
from peftune.untrusted.json_file import check_bytes, read_object, shown
from peftune.untrusted.tensor_header import Header, read_header

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER_CONFIG, ADAPTER_CONFIG = (
    "config.json",
    "tokenizer_config.json",
    "adapter_config.json",
)
LARGE_BYTES = 256 * 2**20
"""For the index of a thousand files, and for a tokenizer of a million tokens."""
LARGE = (INDEX, "tokenizer.json", "vocab.json")
SMALL = (
    CONFIG,
    TOKENIZER_CONFIG,
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

COUNTS = re.compile(r"(layers?|experts)$")
SIZES = re.compile(r"vocab|hidden|intermediate|ffn|d_model|d_ff|n_embd|(^|_)(size|dim)$")
POSITIONS = re.compile(r"n_positions|n_ctx|(max|num).*position")
LABELS = re.compile(r"_?num_labels")
MAX_COUNT, MAX_SIZE, MAX_LABELS, MAX_POSITIONS = 4096, 2**17, 10_000, 2**24
"""What any model may have, whatever its weights are."""
PACKED = 16
"""Elements that quantized weights may hold in one of theirs."""


def check_configs(folder: Path) -> None:
    """Raise UnsafeFileError for a base model whose configurations are none, or lead out of its folder."""
    if (folder / ADAPTER_CONFIG).is_file():
        raise UnsafeFileError(
            f"{folder} has an {ADAPTER_CONFIG}, which would be put on the model, or lead to another one; "
            "remove it, or name the base model itself."
        )
    config = check_texts(folder).get(CONFIG, {})
    _check_requests(folder / CONFIG, config)


def check_texts(folder: Path) -> dict[str, dict[str, Any]]:
    """The configurations in a folder by their file's name. Raises UnsafeFileError for one that is too
    large or no JSON object, and for a tokenizer with files elsewhere."""
    for name in LARGE:
        if (folder / name).is_file():
            check_bytes(folder / name, LARGE_BYTES)
    objects = {name: read_object(folder / name) for name in SMALL if (folder / name).is_file()}
    _check_tokenizer(folder / TOKENIZER_CONFIG, objects.get(TOKENIZER_CONFIG, {}))
    return objects


def _check_requests(path: Path, config: Mapping[str, Any]) -> None:
    """Other weights than those that were looked at, and kernels, which are fetched and run."""
    weights = config.get("transformers_weights")
    if weights is not None:
        raise UnsafeFileError(
            f"{path}: transformers_weights: {shown(weights)} names other weights than {ONE}; remove the "
            "key."
        )
    for key, value in config.items():
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise UnsafeFileError(
                f"{path}: {shown(key)[1:-1]}: {shown(value)} would fetch code and run it; remove the key."
            )


def _check_tokenizer(path: Path, config: Mapping[str, Any]) -> None:
    """Files that a tokenizer's configuration names are those beside it. What is no file of this machine
    is an old path of the author's, which nobody reads."""
    for key, value in config.items():
        if key == "fast_tokenizer_files":
            for name in value if isinstance(value, list) else [value]:
                check_name(name, path)
        elif (
            key.endswith("_file") and isinstance(value, str) and Path(path.parent, value).is_file()
        ):
            check_name(value, path)


def weight_headers(folder: Path) -> list[Header]:
    """Headers of the files that transformers would load: one, or those of the index.

    Raises UnsafeFileError for an index that names other files or tensors than are there.
    """
    if (folder / ONE).is_file() or not (folder / INDEX).is_file():
        return [read_header(folder / ONE)] if (folder / ONE).is_file() else []
    index = folder / INDEX
    places = read_object(index, LARGE_BYTES).get("weight_map")
    if not isinstance(places, dict):
        raise UnsafeFileError(f"{index} has no weight_map of tensors and files.")
    headers = {}
    for name in sorted({check_name(one, index, ".safetensors") for one in places.values()}):
        if not (folder / name).is_file():
            raise UnsafeFileError(f"{index} names {shown(name)}, which is not there; fetch it.")
        headers[name] = read_header(folder / name)
    for tensor, name in places.items():
        if tensor not in headers[name].entries:
            raise UnsafeFileError(
                f"{index} says that {shown(tensor)} is in {shown(name)}, which lacks it; fetch both anew."
            )
    return [*headers.values()]


def check_sizes(path: Path, config: Mapping[str, Any], headers: list[Header]) -> None:
    """Raise UnsafeFileError for a configuration of a model that is far larger than its weights.

    Without any, as before they are fetched, bounds are those of the largest models.
    """
    tensors = sum(len(header.entries) for header in headers)
    largest = max((header.largest_dimension for header in headers), default=2**20)
    bounds = {
        POSITIONS: MAX_POSITIONS,
        LABELS: max(MAX_LABELS, largest),
        COUNTS: max(MAX_COUNT, tensors),
        SIZES: max(MAX_SIZE, PACKED * largest),
    }
    for key, value in _numbers(config):
        bound = next((bound for kind, bound in bounds.items() if kind.search(key)), None)
        if bound is not None and value > bound:
            raise UnsafeFileError(
                f"{path}: {shown(key)[1:-1]}: {value:,} is far more than the model's weights can be "
                f"for, at most {bound:,}; fetch it anew, or do not use it."
            )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number with the key that it stands under, however deep."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _numbers(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one, key)
    elif isinstance(value, (int, float)):
        yield key, value


def most_parameters(config: Mapping[str, Any], headers: list[Header], labels: int) -> int:
    """How many parameters a model with these weights and a head of so many labels may have: other heads
    and tied copies may be missing, and quantized weights hold several in one."""
    packed = PACKED if config.get("quantization_config") else 1
    largest = max((header.largest_dimension for header in headers), default=0)
    return 4 * packed * sum(header.elements for header in headers) + labels * largest + 10**8
