"""What the checks share: the engine before its first step, a few rows, and a moved adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from peftune.context import Run
from peftune.data.collate import Batch
from peftune.data.rows import EncodedRow, RowTuple
from peftune.engines.engine import Engine
from peftune.export.parity import spread
from peftune.probing import model_scores
from peftune.sources import rounding_bound
from peftune.training.loop import Training, named_batch, to_device
from peftune.training.randomness import derived_seed

PERTURBATION = 0.05
"""Standard deviation of what is added to each number of the adapter."""
SEARCHED = 256
"""Rows among which short, long and differently supervised ones are looked for."""


@dataclass
class Trial:
    """A run before its first step. `initial` is the adapter that it starts from.

    Between checks the engine holds `perturbed`. In LoRA's own start B is zero: A then has no gradient
    at all, and an adapter that is not applied, or not saved, changes nothing that could be seen.
    """

    context: Run
    engine: Engine
    initial: dict[str, torch.Tensor]
    stage: str = "training"
    """What is being computed, for an error that the memory ends it with."""
    gradients: dict[str, torch.Tensor] | None = None
    """Of the largest step; None before it was made."""
    changed: list[str] = field(default_factory=list)
    """Base weights that the largest step changed."""
    tokens_per_second: float = 0.0
    peak_bytes: int = 0

    @cached_property
    def training(self) -> Training:
        return self.context.training(self.engine)

    @cached_property
    def perturbed(self) -> dict[str, torch.Tensor]:
        """`initial` plus seeded noise, the same on every rank."""
        generator = torch.Generator().manual_seed(
            derived_seed(self.context.recipe.seed, "selftest")
        )
        return {
            name: tensor + PERTURBATION * torch.randn(tensor.shape, generator=generator)
            for name, tensor in self.initial.items()
        }

    def restart(self) -> None:
        """Undo every step; the adapter is `perturbed` again."""
        self.engine.restart(self.initial)
        self.engine.load_trainable_state(self.perturbed)

    @property
    def bound(self) -> float:
        return rounding_bound(self.context.recipe)

    @cached_property
    def ragged(self) -> list[EncodedRow]:
        """The shortest, a middle and the longest of the first training rows."""
        lengths = self.context.prepared.rows["train"].lengths()[:SEARCHED].sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        picked = [order[0], order[len(order) // 2], order[-1]]
        return [self.training.batching.drawn(self.training.rows[int(i)], int(i)) for i in picked]

    def first(self, count: int) -> list[EncodedRow]:
        """The first training rows, at most `count`."""
        return [self.training.rows[i] for i in range(min(count, len(self.training.rows)))]

    def batch(self, rows: Sequence[EncodedRow]) -> Batch:
        """Rows as one batch on the device, as the loop makes it."""
        made = named_batch(self.training.batching, [*rows], [*range(len(rows))])
        return to_device(made, self.engine.ranks.device)

    def scores(
        self,
        batch: Batch,
        model: torch.nn.Module | None = None,
        padded: bool = False,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The scores of a batch as `model_scores` gives them."""
        objective = self.training.batching.objective
        return model_scores(self.engine, batch, objective, model, padded, places)

    def small_training(self, rows: list[EncodedRow], per_device: int) -> Training:
        """The training on `rows` alone, all in one step."""
        plan = replace(
            self.context.plan,
            rows=len(rows),
            global_batch_size=len(rows),
            per_device_batch_size=per_device,
            steps_per_epoch=1,
            total_steps=1,
        )
        return replace(self.training, rows=RowTuple(rows), plan=plan)


def spread_difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest difference of a row, its root mean square, as a share of the spread of all `ours`.

    Infinite scores, which stand at padding, must stand at the same places; other shapes
    differ infinitely.
    """
    pairs = [*zip(ours, theirs, strict=True)]
    if any(a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()) for a, b in pairs):
        return float("inf")
    every = torch.cat([one[one.isfinite()].double() for one in ours])
    scale = spread(every)
    gaps = [(a - b)[a.isfinite()].double() for a, b in pairs]
    return max(float(gap.square().mean().sqrt() / scale) for gap in gaps)
