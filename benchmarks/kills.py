"""Kills a short training at random moments, again and again, and compares what it ends with.

python benchmarks/kills.py [--kills 150] [--two-ranks 50] [--seed 0]

Each kill is a SIGKILL to a rank that prepares, trains, saves or evaluates. A run is started again
until it is done; its adapter, metrics, scores and predictions must then be those of a run that nobody
killed, bit for bit. One thread a rank, CPU, float32.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.checkpoint.killing import Game

STEPS = 10
RECIPE = {
    "task": "summarize",
    "output_dir": "unused",
    "model": {"model_name_or_path": "embedded:decoder", "dtype": "float32"},
    "data": {
        "path": "embedded:dialogues",
        "columns": {"completion": "summary"},
        "prompt_template": "{dialogue}\nSummary:",
        "max_train_samples": 64,
        "max_validation_samples": 4,
        "max_test_samples": 4,
    },
    "adapter": {"method": "lora", "r": 4, "lora_dropout": 0.1},
    "train": {
        "per_device_train_batch_size": 2,
        "global_batch_size": 4,
        "max_steps": STEPS,
        "learning_rate": 1.0e-3,
        "eval_steps": 2,
        "save_steps": 1,
        "save_total_limit": 3,
        "load_best_model_at_end": True,
    },
    "evaluation": {"max_new_tokens": 4},
    "export": {"merge": False, "verify": False},
}


def main() -> None:
    """Play both games and print what was killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--two-ranks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for world_size, kills in ((1, chosen.kills), (2, chosen.two_ranks)):
        if kills:
            play(world_size, kills, Random(chosen.seed))


def play(world_size: int, kills: int, random: Random, tree: Mapping[str, Any] = RECIPE) -> None:
    """All kills of one number of ranks, of a recipe with STEPS steps."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({**tree}), encoding="utf-8")
        game = Game(recipe, Path(folder), STEPS, random, world_size)
        game.play(kills)
        minutes = (time.monotonic() - started) / 60
        print(f"{world_size} rank(s): {kills} kills in {minutes:.1f} min: {dict(game.kills)}")


if __name__ == "__main__":
    main()
