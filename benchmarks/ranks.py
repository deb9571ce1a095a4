"""Two ranks of one thread each against one process of two threads, on the decoder of `workloads.py`.

    python benchmarks/ranks.py --rounds 3 --out FILE.json

The same rows in the same steps; layouts run in turn as whole processes. Prints the median of the paired
ratios of tokens per second, and loss and gradient norm at the first and last step.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from running import peftune  # noqa: E402
from workloads import WORKLOADS, recipe, write  # noqa: E402

LAYOUTS = {"cpu": 2, "cpu_ddp": 1, "cpu_zero2": 1, "cpu_zero3": 1}
"""Launcher file to the threads of each of its processes."""
WARMUP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kind", choices=WORKLOADS, default="decoder")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    workload = WORKLOADS[arguments.kind]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(workload, workload.batch * arguments.steps, folder)
        tree = recipe(workload, folder, arguments.steps, {"model": {"dtype": "float32"}})
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
        rounds = [
            {layout: measured(folder, layout, workload.batch) for layout in LAYOUTS}
            for _ in range(arguments.rounds)
        ]
    report = {"date": time.strftime("%Y-%m-%d"), "rounds": rounds, "ratios": ratios(rounds)}
    print(json.dumps(report["ratios"], indent=2))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")


def measured(folder: Path, layout: str, batch: int) -> dict[str, Any]:
    threads = LAYOUTS[layout]
    ranks = 1 if layout == "cpu" else 2
    rows = f"train.per_device_train_batch_size={batch // ranks}"
    found = peftune(folder, threads, layout, (rows,))
    seconds = found["seconds"][WARMUP:]
    return {
        "seconds_per_step": sum(seconds) / len(seconds),
        "peak_gb_of_a_process": found["peak_bytes"] / 1e9,
        "first": [found["loss"][0], found["grad_norm"][0]],
        "last": [found["loss"][-1], found["grad_norm"][-1]],
    }


def ratios(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Speed of each layout as a share of that of one process."""
    found = {}
    for layout in LAYOUTS:
        pairs = [one["cpu"]["seconds_per_step"] / one[layout]["seconds_per_step"] for one in rounds]
        spread = {"least": min(pairs), "most": max(pairs)}
        found[layout] = {"median": statistics.median(pairs), **spread}
    return found


if __name__ == "__main__":
    main()
