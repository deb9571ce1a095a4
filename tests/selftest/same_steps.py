"""Three steps, the whole self-test, and the same three steps on the same engine: started by a launcher.

same_steps.py RECIPE: prints "equal" on rank 0 when every number and every adapter weight is the same.
"""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from peftune.context import Run  # noqa: E402
from peftune.engines.engine import Engine  # noqa: E402
from peftune.engines.launch import read_launch  # noqa: E402
from peftune.engines.ranks import joined_ranks  # noqa: E402
from peftune.pipeline import adapted_model, start_engine  # noqa: E402
from peftune.preparation import plan_for, prepare_data  # noqa: E402
from peftune.recipe import load_recipe  # noqa: E402
from peftune.selftest.perform import require_passed, selftest  # noqa: E402
from peftune.training.loop import train  # noqa: E402


def steps(context: Run, engine: Engine) -> tuple[object, ...]:
    """Records and final adapter of a training."""
    records = tuple(train(context.training(engine)))
    return records, {name: t.numpy().tobytes() for name, t in engine.trainable_state().items()}


def compare(context: Run) -> None:
    engine = start_engine(context, adapted_model(context))
    initial = engine.trainable_state()
    first = steps(context, engine)
    engine.restart(initial)
    assert steps(context, engine) == first, "restart"
    engine.restart(initial)
    require_passed(selftest(context, engine, initial, full=True, say=lambda table: None))
    assert steps(context, engine) == first, "selftest"
    if context.ranks.is_main:
        print("equal")


def main() -> None:
    recipe, launch = load_recipe(sys.argv[1], sys.argv[2:]), read_launch(os.environ)
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    with joined_ranks(launch, (), ".") as ranks:
        compare(Run(recipe, launch, ranks, prepared, plan, Path(".")))


main()
