"""Engines: how one training is spread over processes. The launcher chooses, the recipe does not.

Every engine is a class with the constructor of `Ddp` and the methods of `Engine`.
"""

import importlib
from typing import TYPE_CHECKING

from peftune.engines.launch import Launch

if TYPE_CHECKING:
    from peft import PeftModel

    from peftune.engines.engine import BuildOptimizer, Engine, StepShape
    from peftune.engines.ranks import Ranks

# Paths, not classes: they need torch, and a recipe is validated without it.
ENGINES = {
    "ddp": "peftune.engines.ddp:Ddp",
    "zero1": "peftune.engines.deepspeed_zero:DeepSpeedZero",
    "zero2": "peftune.engines.deepspeed_zero:DeepSpeedZero",
    "zero3": "peftune.engines.deepspeed_zero:DeepSpeedZero",
    "fsdp2": "peftune.engines.fsdp2:Fsdp2",
}


def prepare(
    ranks: "Ranks",
    launch: Launch,
    model: "PeftModel",
    build_optimizer: "BuildOptimizer",
    shape: "StepShape",
) -> "Engine":
    """Spread `model` over the ranks as the launcher asked."""
    module, _, name = ENGINES[launch.engine].partition(":")
    engine_class = importlib.import_module(module).__dict__[name]
    return engine_class(ranks, launch, model, build_optimizer, shape)
