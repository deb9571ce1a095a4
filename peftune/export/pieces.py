"""A model without weights, and the pieces of its checkpoint from which each parameter is made.

transformers renames, fuses and splits tensors while it loads them; its own tables say how, and are used
the other way round for what is written.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from peftune.errors import ModelError

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """Tensors of the checkpoint that become one parameter, or several together."""

    targets: tuple[str, ...]
    keys: tuple[str, ...]
    pattern: dict[str, str] = field(default_factory=dict)
    """By key, which of the converter's patterns it matches; empty where it is only renamed."""


class Checkpoint:
    """The files of a base model beside `model`, which is on the meta device.

    Raises ModelError for a file that is no safetensors.
    """

    def __init__(self, model: PreTrainedModel, files: Iterable[Path]) -> None:
        self.model, self.files = model, places(files)
        self.conversions = get_model_conversion_mapping(model)
        self.converters = {
            pattern: one
            for one in self.conversions
            if isinstance(one, WeightConverter)
            for pattern in one.source_patterns
        }
        self.parameters = model.state_dict()
        self.pieces = self._pieces()
        # What is written is named as it was read.
        vars(model)["_weight_conversions"] = [one for one in self.conversions if one.was_used()]

    def _pieces(self) -> list[Piece]:
        keys: dict[str, list[str]] = defaultdict(list)
        patterns: dict[str, dict[str, str]] = defaultdict(dict)
        for key in sorted(self.files, key=dot_natural_key):
            name, pattern = self._name(key)
            if name in self.parameters:
                keys[name].append(key)
                if pattern is not None:
                    patterns[name][key] = pattern
        return [
            Piece(self._targets(name, patterns[name]), tuple(found), patterns[name])
            for name, found in keys.items()
        ]

    def _name(self, key: str) -> tuple[str, str | None]:
        """The parameter that a key of the checkpoint belongs to, or the first of several."""
        renamings = [one for one in self.conversions if isinstance(one, WeightRenaming)]
        converters = [one for one in self.conversions if isinstance(one, WeightConverter)]
        prefix = self.model.base_model_prefix
        name, pattern = rename_source_key(key, renamings, converters, prefix, self.parameters)
        if name not in self.parameters and key in self.parameters:
            return key, None
        return name, pattern

    def _targets(self, name: str, patterns: Mapping[str, str]) -> tuple[str, ...]:
        if not patterns:
            return (name,)
        made = self.converters[next(iter(patterns.values()))].target_patterns
        return tuple(name.replace(made[0], one) for one in made)

    def read(self, piece: Piece, dtype: torch.dtype) -> Tensors:
        """The parameters that a piece becomes, rounded to `dtype` first."""
        found = self.tensors(piece.keys)
        cast = {
            key: one.to(dtype) if one.is_floating_point() else one for key, one in found.items()
        }
        if not piece.pattern:
            return {piece.targets[0]: cast[piece.keys[0]]}
        converter = copy.deepcopy(self.converters[next(iter(piece.pattern.values()))])
        for key in piece.keys:
            value: Any = cast[key]
            converter.add_tensor(piece.targets[0], key, piece.pattern[key], value)
        made = converter.convert(piece.targets[0], model=self.model, config=self.model.config)
        return {name: one[0] if isinstance(one, list) else one for name, one in made.items()}

    def tensors(self, keys: Iterable[str]) -> Tensors:
        """Tensors of the checkpoint as they are. Files are closed again, so that what was read of
        them stays in memory no longer than the tensors."""
        found = {}
        with ExitStack() as stack:
            handles: dict[Path, Any] = {}
            for key in keys:
                path = self.files[key]
                if path not in handles:
                    handles[path] = stack.enter_context(opened(path))
                found[key] = handles[path].get_tensor(key)
        return found

    def saved(self, parameters: Tensors) -> Tensors:
        """Parameters by the names, and in the form, in which the base model's files have them."""
        saved: Tensors = revert_weight_conversion(self.model, parameters)
        return saved


def opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {error}.") from error


def places(files: Iterable[Path]) -> dict[str, Path]:
    """The file of each tensor. Raises ModelError for a tensor that two files have."""
    found: dict[str, Path] = {}
    for path in files:
        with opened(path) as handle:
            for key in [*handle.keys()]:
                if key in found:
                    raise ModelError(f"{key} is in both {found[key]} and {path}.")
                found[key] = path
    return found
