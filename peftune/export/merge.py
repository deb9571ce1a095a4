"""Folds an adapter into its base model, tensor by tensor: the result loads without peft.

The model itself never stands in memory. Its skeleton tells, with peft's own code, what belongs to each
adapted layer; that layer's weights are read, merged, rounded once and written, and are gone.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from peftune.errors import ModelError, PeftuneError
from peftune.export.adapted import Adapted
from peftune.export.adapter import CONFIG_FILE, WEIGHTS_FILE
from peftune.export.pieces import Checkpoint, Piece, Tensors
from peftune.export.settling import aside_of, settle
from peftune.export.shards import in_shards, shard_names, write_index
from peftune.export.tensor_file import TensorFile
from peftune.fingerprints import file_sha256
from peftune.quantization import Dequantizer
from peftune.records import storing, write_json

PLAN, CHANGED = "plan.json", "changed"
"""In the folder until it is complete: what is to be written, and that something differs from the base."""


@dataclass(frozen=True)
class Unit:
    """Pieces that are merged together, since an adapted layer takes them together."""

    pieces: tuple[Piece, ...]

    @property
    def targets(self) -> list[str]:
        return [name for piece in self.pieces for name in piece.targets]


def merge(
    adapter_folder: Path,
    skeleton: PreTrainedModel,
    files: list[Path],
    out: Path,
    dtype: torch.dtype,
    finish: Callable[[Path], None],
    quantized: Dequantizer | None = None,
) -> None:
    """Write the base model plus the adapter to `out`, which must not exist, as safetensors.

    `skeleton` is the base model on the meta device and `files` hold its weights, which are rounded to
    `dtype` as in training; with `quantized` they are what its bits stand for. Sums are formed in
    float32 and rounded once to `dtype`. Written aside and renamed; a merge that was interrupted goes
    on with the first file that is not complete. `finish` may add files to the folder before it gets
    its name; when it raises a ParityError, the folder gets `.rejected` behind it.

    Raises StorageError, ModelError when the adapter does not fit the base, and PeftuneError when the
    merge changes nothing or leaves the range of `dtype`.
    """
    aside = aside_of(out)
    checkpoint = Checkpoint(skeleton, files)
    adapted = Adapted(skeleton, adapter_folder)
    job = Merge(checkpoint, adapted, dtype, quantized)
    job.settle_ties()
    about = {name: file_sha256(adapter_folder / name) for name in (WEIGHTS_FILE, CONFIG_FILE)}
    basis = quantized.described if quantized else "original"
    job.write(aside, {**about, "dtype": str(dtype), "merge_base": basis})
    settle(aside, out, finish, unneeded=(PLAN, CHANGED))


class Merge:
    """One merge: what is written, in order, and each part of it when its turn comes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapted: Adapted,
        dtype: torch.dtype,
        quantized: Dequantizer | None,
    ) -> None:
        self.checkpoint, self.adapted = checkpoint, adapted
        self.dtype, self.quantized = dtype, quantized
        self.changed = False
        self.pieces = self._with_whole(checkpoint.pieces)

    def _with_whole(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces, and one without a source for each parameter that only the adapter has."""
        known = {name for piece in pieces for name in piece.targets}
        added = [Piece((name,), ()) for name in self.adapted.whole if name not in known]
        tied = self.adapted.ties
        for name, _ in self.checkpoint.model.named_parameters():
            if name not in known and name not in self.adapted.whole and name not in tied:
                raise ModelError(f"The base model's files lack {name}, and the adapter has none.")
        return [*pieces, *added]

    def settle_ties(self) -> None:
        """One tensor for weights that are tied; two, and no tie, where the adapter makes them differ."""
        by_target = {piece.targets[0]: piece for piece in self.pieces}
        for name, source in self.adapted.ties.items():
            self.pieces = [piece for piece in self.pieces if piece.targets != (name,)]
            if source not in by_target:
                raise ModelError(f"The base model's files lack {source}, to which {name} is tied.")
            if self.adapted.touches(name) or self.adapted.touches(source):
                copy = Piece((name,), by_target[source].keys)
                ours, theirs = (
                    self.merged(Unit((piece,)))[piece.targets[0]]
                    for piece in (copy, by_target[source])
                )
                if not torch.equal(ours, theirs):
                    self.pieces.append(copy)
                    self.checkpoint.model.config.tie_word_embeddings = False

    def units(self) -> Iterator[Unit]:
        """Pieces that share an adapted layer together, in the order of the checkpoint."""
        groups: dict[int, list[Piece]] = {}
        group_of: dict[Any, int] = {}
        for index, piece in enumerate(self.pieces):
            layers = {layer for name in piece.targets for layer in self.adapted.layers_of(name)}
            mine, joined = (
                [piece],
                {group_of[id(layer)] for layer in layers if id(layer) in group_of},
            )
            for other in sorted(joined, reverse=True):
                mine = groups.pop(other) + mine
            groups[index] = mine
            for one in mine:
                for name in one.targets:
                    group_of |= {id(layer): index for layer in self.adapted.layers_of(name)}
        for pieces in groups.values():
            yield Unit(tuple(pieces))

    def shapes(self, unit: Unit) -> Tensors:
        """What a unit writes, without data."""
        whole = {
            name: torch.empty_like(shape, dtype=self.dtype if shape.is_floating_point() else None)
            for name in unit.targets
            for shape in [self.checkpoint.parameters[name]]
        }
        return self.checkpoint.saved(whole)

    def merged(self, unit: Unit) -> Tensors:
        """The parameters of a unit as they will be, in `dtype`."""
        found: Tensors = {}
        for piece in unit.pieces:
            if piece.keys:
                found |= self.checkpoint.read(piece, self.dtype)
        if not any(map(self.adapted.touches, unit.targets)) and self.quantized is None:
            return found
        weights = found
        if self.quantized is not None:
            weights = {name: self.quantized(name, tensor) for name, tensor in found.items()}
        made = self.adapted.merged(unit.targets, weights)
        made = {
            name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in made.items()
        }
        self._look_at(made, weights)
        return made

    def _look_at(self, made: Tensors, base: Tensors) -> None:
        for name, tensor in made.items():
            if not is_finite(tensor):
                raise PeftuneError(
                    f"The merged {name} is not finite in {self.dtype}; set model.dtype."
                )
            if not self.changed:
                before = base.get(name)
                self.changed = before is None or not torch.equal(before.to(tensor.dtype), tensor)

    def write(self, aside: Path, about: dict[str, Any]) -> None:
        """Every file that a loader needs, into `aside`."""
        shards = in_shards([(unit, self.shapes(unit)) for unit in self.units()])
        names = shard_names(len(shards))
        listed = {
            name: {key: [*shape.shape] for _, shapes in shard for key, shape in shapes.items()}
            for name, shard in zip(names, shards, strict=True)
        }
        plan = {**about, "files": listed, "base": self.fingerprint()}
        if not is_begun(aside, plan):
            self.begin(aside, plan)
        for name, shard in zip(names, shards, strict=True):
            if not (aside / name).exists():
                self.write_shard(aside / name, shard)
        if not (aside / CHANGED).exists() and not self.has_whole():
            shutil.rmtree(aside)
            raise PeftuneError(
                f"The merge changed nothing: in {self.dtype} every weight equals the base model's. "
                "The adapter is untrained, or its update is smaller than the rounding."
            )
        if len(names) > 1:
            write_index(aside, names, shards)

    def has_whole(self) -> bool:
        known = {name for piece in self.checkpoint.pieces for name in piece.targets}
        return any(name not in known for name in self.adapted.whole)

    def write_shard(self, path: Path, shard: list[tuple[Unit, Tensors]]) -> None:
        """One file, under another name until it is complete."""
        unfinished = path.with_name(f"{path.name}.partial")
        shapes = {name: shape for _, own in shard for name, shape in own.items()}
        with TensorFile(unfinished, shapes) as file:
            for tensors in self.made_ahead([unit for unit, _ in shard]):
                for name, tensor in tensors.items():
                    file.write(name, tensor)
        os.replace(unfinished, path)
        if self.changed:
            (path.parent / CHANGED).touch()

    def made_ahead(self, units: list[Unit]) -> Iterator[Tensors]:
        """What each unit writes; the next is read and merged while the last one is written."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: Future[Tensors] | None = None
            for unit in units:
                coming = pool.submit(self.saved, unit)
                if waiting is not None:
                    yield waiting.result()
                waiting = coming
            if waiting is not None:
                yield waiting.result()

    def saved(self, unit: Unit) -> Tensors:
        """The merged parameters of a unit in the form of the base model's files."""
        return self.checkpoint.saved(self.merged(unit))

    def fingerprint(self) -> dict[str, list[int]]:
        """The base model's files as they are now."""
        used = {self.checkpoint.files[key] for piece in self.pieces for key in piece.keys}
        return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(used)}

    def begin(self, aside: Path, plan: dict[str, Any]) -> None:
        """A new folder with all but the weights: configuration, and code of the model's own."""
        model = self.checkpoint.model
        model.config.dtype = self.dtype
        shutil.rmtree(aside, ignore_errors=True)
        with storing(aside, 0):
            aside.mkdir(parents=True)
            model.save_pretrained(aside, state_dict={})
            for empty in aside.glob("*.safetensors"):
                empty.unlink()
        write_json(aside / PLAN, plan)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are; by the least and the largest, which are NaN where any number is."""
    ends = torch.aminmax(tensor) if tensor.is_floating_point() and tensor.numel() else ()
    return all(bool(end.isfinite()) for end in ends)


def is_begun(aside: Path, plan: dict[str, Any]) -> bool:
    """Whether an earlier start of the same merge left its folder."""
    file = aside / PLAN
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return bool(known == json.loads(json.dumps(plan)))
