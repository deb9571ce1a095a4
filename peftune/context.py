"""What every stage of one run shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peftune.engines.engine import Engine
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.plan import Plan
from peftune.preparation import Prepared
from peftune.recipe import Recipe
from peftune.training.loop import Asks, Training


@dataclass(frozen=True)
class Run:
    """A recipe on its ranks, with its rows and its arithmetic."""

    recipe: Recipe
    launch: Launch
    ranks: Ranks
    prepared: Prepared
    plan: Plan
    folder: Path

    def training(self, engine: Engine, asks: Callable[[], Asks] = Asks) -> Training:
        """What the train loop needs of a run."""
        rows, recipe, batching = self.prepared.rows["train"], self.recipe, self.prepared.batching
        return Training(engine, rows, batching, recipe.train, self.plan, recipe.seed, asks)
