"""What every stage of one run shares."""

from dataclasses import dataclass
from pathlib import Path

from peftune.engines.engine import Engine
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.plan import Plan
from peftune.preparation import Prepared
from peftune.recipe import Recipe
from peftune.training.loop import Training


@dataclass(frozen=True)
class Run:
    """A recipe on its ranks, with its rows and its arithmetic."""

    recipe: Recipe
    launch: Launch
    ranks: Ranks
    prepared: Prepared
    plan: Plan
    folder: Path

    def training(self, engine: Engine) -> Training:
        """What the train loop needs of a run."""
        rows, recipe = self.prepared.rows["train"], self.recipe
        return Training(engine, rows, self.prepared.batching, recipe.train, self.plan, recipe.seed)
