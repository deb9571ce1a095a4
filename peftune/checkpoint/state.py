"""What is in a checkpoint besides the adapter as peft loads it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import load_file

from peftune.checkpoint.folder import step_of
from peftune.errors import CheckpointError, UnsafeFileError
from peftune.export.tensors import save_tensors
from peftune.records import write_json
from peftune.training.selection import Selection
from peftune.untrusted.json_file import read_object
from peftune.untrusted.tensor_header import check_finite, read_header

STATE, BEST, PROGRESS = "state.safetensors", "best.safetensors", "progress.json"
PARAMETER, OPTIMIZER = "parameter/", "optimizer/"
Tensors = dict[str, torch.Tensor]
Total = Annotated[int | float, Field(ge=0, le=1e18)]
TOTALS: dict[str, type] = {
    "nll_sum": float,
    "target_tokens": int,
    "tokens": int,
    "training_s": float,
    "metrics_bytes": int,
}
"""What a run goes on counting from."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, in plain values."""

    step: Annotated[int, Field(ge=0)]
    """Finished optimizer steps."""
    selection: Selection
    totals: Mapping[str, Total]
    """What the reporter has counted."""
    trackers: Mapping[str, str]
    """Ids of the run in experiment trackers, so that it goes on there too."""
    identity: Mapping[str, Any]
    """What the numbers depend on."""
    versions: Mapping[str, str]


@dataclass(frozen=True)
class State:
    """The tensors of a run, whole, on the CPU."""

    parameters: Tensors
    """Everything that learns, by parameter name."""
    optimizer: Tensors
    """The optimizer's state, by the names of `engines/optimizer_state.py`."""
    best: Tensors = field(default_factory=dict)
    """The parameters of the best validation, where the run ends with them and they are not these."""

    def check(self, like: Mapping[str, torch.Tensor], folder: Path) -> None:
        """Raise CheckpointError unless this fits a model that learns `like`."""
        for found in (self.parameters, self.best or self.parameters):
            ours = {name: list(tensor.shape) for name, tensor in like.items()}
            theirs = {name: list(tensor.shape) for name, tensor in found.items()}
            if ours != theirs:
                name = next(n for n in (*ours, *theirs) if ours.get(n) != theirs.get(n))
                raise CheckpointError(
                    f"{folder / STATE} does not fit this adapter: {name} has the shape "
                    f"{theirs.get(name, 'none')}, not {ours.get(name, 'none')}."
                )


def write_state(folder: Path, state: State, progress: Progress) -> None:
    """Raises StorageError, and TrainingError for an empty tensor."""
    named = {PARAMETER + name: tensor for name, tensor in state.parameters.items()}
    named |= {OPTIMIZER + name: tensor for name, tensor in state.optimizer.items()}
    save_tensors(folder / STATE, named)
    if state.best:
        save_tensors(folder / BEST, state.best)
    write_json(folder / PROGRESS, asdict(progress))


def read_state(folder: Path) -> State:
    """The tensors of a checkpoint that is whole. Raises CheckpointError for an empty one, and for values
    with which no training could go on."""
    for name in (STATE, BEST):
        if (folder / name).is_file():
            _require_finite(folder / name)
    named = load_file(folder / STATE)
    for name, tensor in named.items():
        if tensor.numel() == 0:
            raise CheckpointError(f"{folder / STATE} has an empty tensor {name}.")

    def under(prefix: str) -> Tensors:
        return {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}

    best = load_file(folder / BEST) if (folder / BEST).is_file() else {}
    return State(under(PARAMETER), under(OPTIMIZER), best)


def _require_finite(file: Path) -> None:
    try:
        check_finite(read_header(file))
    except UnsafeFileError as error:
        raise CheckpointError(f"resume: {error}") from error


def read_progress(folder: Path) -> Progress:
    """The plain values of a checkpoint that is whole. Raises CheckpointError for other ones."""
    file = folder / PROGRESS
    try:
        progress = TypeAdapter(Progress).validate_python(read_object(file))
    except UnsafeFileError as error:
        raise CheckpointError(f"resume: {error}") from error
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"]))
        raise CheckpointError(f"resume: {file}: {key}: {found['msg']}.") from error
    if progress.step != step_of(folder):
        raise CheckpointError(f"resume: {file} is of step {progress.step:,}, not of its folder's.")
    for name, kind in TOTALS.items():
        if not isinstance(progress.totals.get(name), (int, kind)):
            raise CheckpointError(f"resume: {file}: totals.{name} is no number of its kind.")
    return progress
