"""Proof that what was written computes what was trained: scores of a few rows, by a fresh process.

A probe holds rows and the scores that the model had for them, with the adapter and without. An artefact
is opened by `plain_scores.py`, which knows transformers and peft alone, and its scores are compared.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div, log_softmax

from peftune.errors import ParityError
from peftune.export.plain_scores import INPUTS
from peftune.export.tensors import storing_tensors

PROBE = "probe.safetensors"
SCRIPT = Path(__file__).with_name("plain_scores.py")
BOUNDS = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far scores that should be equal may differ, as a share of their spread, by number format."""
MOST_SCORES = 2**20
"""Numbers that a probe keeps of a model's scores, at most, as far as one place has fewer."""
MOST_TOKENS = 512
"""Tokens that a probe's rows have together, at most, as far as one row has fewer."""
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """Rows, places in them, and scores (places, outputs) there."""

    inputs: Tensors
    """What the model reads: `INPUTS` as far as it takes them, int64 (rows, tokens)."""
    places: Tensors
    """`rows` (places,), and `tokens` (places,) where a row has scores of several."""
    adapted: torch.Tensor
    base: torch.Tensor
    """Without the adapter."""

    def save(self, path: Path) -> None:
        """Raises StorageError."""
        tensors = {**self.inputs, **self.places, "adapted": self.adapted, "base": self.base}
        with storing_tensors(path, tensors.values()):
            save_file(tensors, path)

    @staticmethod
    def load(path: Path) -> "Probe":
        found = load_file(path)
        inputs = {name: found[name] for name in INPUTS if name in found}
        places: Tensors = {name: found[name] for name in ("rows", "tokens") if name in found}
        return Probe(inputs, places, found["adapted"], found["base"])


@dataclass(frozen=True, eq=False)
class Opened:
    """How a fresh process opens an artefact."""

    model: str
    """A folder, or an id of the Hub."""
    auto_class: str
    dtype: str
    bytes: int
    """Of the model's weights in that dtype."""
    adapter: str | None = None
    revision: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    head: dict[str, Any] = field(default_factory=dict)
    """What the configuration is told about a head that the model's own files do not have."""
    quantization: dict[str, Any] | None = None


@dataclass(frozen=True)
class Parity:
    """How far an artefact is from the model that was trained.

    Differences are root mean squares over a row's scores, the largest of all rows, as a share of the
    spread of all scores (see `spread`).
    """

    difference: float
    adapter_effect: float
    """The same between the trained model and its base."""
    bound: float
    largest_logit_difference: float
    kl: float | None
    """Mean of KL(trained ‖ artefact) over the places in nats; None where scores are no choice."""
    top1_agreement: float | None
    places: int

    @property
    def accepted(self) -> bool:
        return self.difference <= self.bound

    def __str__(self) -> str:
        return (
            f"scores differ by {self.difference:.1e} of their spread (bound {self.bound:.0e}, "
            f"the adapter itself changes them by {self.adapter_effect:.1e})"
        )


def compared(probe: Probe, found: torch.Tensor, bound: float | None, chooses: bool) -> Parity:
    """An artefact's scores (places, outputs) beside the probe's; `chooses` where they are logits of
    alternatives.

    Without a bound, which no arithmetic gives for other weights, it is the adapter's own effect: the
    artefact has to be nearer to what was trained than the base is. Raises ParityError for scores of
    another shape.
    """
    if found.shape != probe.adapted.shape:
        raise ParityError(
            f"its scores have the shape {tuple(found.shape)}, those of training had "
            f"{tuple(probe.adapted.shape)}"
        )
    ours, theirs = probe.adapted.double(), found.double()
    rows = probe.places["rows"]
    effect = _difference(ours, probe.base.double(), rows)
    kl = agreement = None
    if chooses:
        logs = log_softmax(theirs, -1), log_softmax(ours, -1)
        kl = float(kl_div(*logs, reduction="batchmean", log_target=True))
        agreement = float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
    return Parity(
        _difference(ours, theirs, rows),
        effect,
        effect if bound is None else bound,
        float((ours - theirs).abs().max()),
        kl,
        agreement,
        len(ours),
    )


def _difference(ours: torch.Tensor, theirs: torch.Tensor, rows: torch.Tensor) -> float:
    """A number that is not finite differs infinitely."""
    squares = (ours - theirs).square().mean(-1)
    by_row = torch.stack([squares[rows == row].mean() for row in rows.unique()]).sqrt()
    return float((by_row / spread(ours)).nan_to_num(nan=float("inf")).max())


def spread(scores: torch.Tensor) -> torch.Tensor:
    """Standard deviation of all scores, or a tenth of their size where they hardly differ; at least
    0.01."""
    size = scores.square().mean().sqrt()
    return torch.maximum(scores.std(correction=0), 0.1 * size).clamp(min=0.01)


def plain_scores(models: Sequence[Opened], inputs: Mapping[str, torch.Tensor]) -> list[Tensors]:
    """Scores of each model by a fresh process without peftune: `adapted`, and `base` where an adapter
    is named.

    `inputs` are a probe's inputs and places. Raises ParityError with the last line of what the process
    said when it cannot open one.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_file(dict(inputs), folder / PROBE)
        out = [str(folder / f"scores{index}") for index in range(len(models))]
        request = {"models": [*map(asdict, models)], "probe": str(folder / PROBE), "out": out}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        answer(folder / "request.json")
        return [load_file(file) for file in out]


def answer(request: Path) -> None:
    """Let a fresh process, isolated from this one's path and folder, answer a request."""
    command = [sys.executable, "-I", str(SCRIPT), str(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ParityError(f"a fresh process could not open it: {said[-1]}")


def prove(probe: Probe, artefacts: Mapping[Opened, float | None], chooses: bool) -> list[Parity]:
    """The parity of artefacts with the probe, each with its bound. Raises ParityError for one that does
    not open, or whose scores are further away than its bound."""
    found = plain_scores([*artefacts], {**probe.inputs, **probe.places})
    parities = [
        compared(probe, one["adapted"], bound, chooses)
        for one, bound in zip(found, artefacts.values(), strict=True)
    ]
    for how, parity in zip(artefacts, parities, strict=True):
        if not parity.accepted:
            what = "adapter" if how.adapter else "merged model"
            raise ParityError(f"the {what}'s {parity}", parity)
    return parities
