"""Which tensors go into which file of a model."""

from pathlib import Path
from typing import TypeVar

import torch

from peftune.export.tensors import bytes_of
from peftune.records import write_json

SHARD = 5 * 10**9
"""Bytes of a file, as far as tensors allow."""
Tensors = dict[str, torch.Tensor]
Part = TypeVar("Part")
"""What tensors belong to that stay together in a file."""


def write_index(aside: Path, names: list[str], shards: list[list[tuple[Part, Tensors]]]) -> None:
    """What is in which file."""
    where = {
        key: name
        for name, shard in zip(names, shards, strict=True)
        for _, shapes in shard
        for key in shapes
    }
    size = sum(bytes_of(shapes.values()) for shard in shards for _, shapes in shard)
    index = {"metadata": {"total_size": size}, "weight_map": where}
    write_json(aside / "model.safetensors.index.json", index)


def in_shards(planned: list[tuple[Part, Tensors]]) -> list[list[tuple[Part, Tensors]]]:
    """Units in their order, in files of at most `SHARD` bytes where they are smaller themselves."""
    shards: list[list[tuple[Part, Tensors]]] = [[]]
    size = 0
    for unit, shapes in planned:
        if shards[-1] and size + bytes_of(shapes.values()) > SHARD:
            shards.append([])
            size = 0
        shards[-1].append((unit, shapes))
        size += bytes_of(shapes.values())
    return shards


def shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
