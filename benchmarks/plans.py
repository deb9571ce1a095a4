"""Plans of large models on layouts of GPUs, from their configurations alone; no GPU and no weights.

    python benchmarks/plans.py [--toy] [--models 8b 70b] [--length 2048]

Prints a Markdown table: for each model and adapter the fastest layout that fits.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

LAYOUTS = ((1, 1, "rtx4090"), (1, 1, "h100"), (1, 8, "h100"), (2, 8, "h100"))
"""Nodes, devices of each, and which."""
MODELS = (("8b", None), ("8b", "bnb-nf4"), ("70b", "bnb-nf4"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--models", nargs="+", choices=("8b", "70b"), default=["8b", "70b"])
    parser.add_argument("--length", type=int, default=2048, help="tokens of every row")
    parser.add_argument("--rows", type=int, default=2, help="rows of a pass")
    arguments = parser.parse_args()
    print("| Model | Adapter | Devices | Layout | Recomputation | Peak, GiB | Decides | tokens/s |")
    print("|---|---|---|---|---|---|---|---|")
    chosen = [one for one in MODELS if one[0] in arguments.models]
    for shape, quantization in (("toy", "bnb-nf4"),) if arguments.toy else chosen:
        for line in lines(shape, quantization, arguments.rows, arguments.length):
            print(line, flush=True)


def lines(shape: str, quantization: str | None, rows: int, length: int) -> Iterator[str]:
    """One line for each layout of devices."""
    from peftune.errors import LaunchError
    from peftune.forecast.devices import GIB, device_named
    from peftune.forecast.layouts import Traced, choices, fastest

    adapter, traced = "QLoRA" if quantization else "LoRA", Traced()
    for nodes, gpus, name in LAYOUTS:
        device, ranks = device_named(name), nodes * gpus
        subject = subject_of(shape, quantization, ranks, rows, length)
        place = f"{nodes} × {gpus} × {name}" if nodes > 1 else f"{gpus} × {name}"
        start = f"| {shape} | {adapter} | {place} |"
        found = choices(subject, device, nodes, ranks, traced)
        try:
            best = fastest(found)
        except LaunchError as error:
            yield f"{start} {str(error).removeprefix('--fit: ')} | | | | |"
            continue
        made = best.forecast
        speed = subject.plan.global_batch_size * length / made.step_seconds
        peak = made.phases[made.deciding] / GIB
        yield (
            f"{start} {best.name} | {best.recomputation} | {peak:.1f} | {made.deciding} | {speed:,.0f} |"
        )


def subject_of(shape: str, quantization: str | None, ranks: int, rows: int, length: int) -> Any:
    """A run of that shape, bfloat16, rank 16 on all linear layers, a quarter of each row learnt."""
    from shapes import SHAPES
    from transformers import LlamaConfig

    from peftune.data.collate import Batching
    from peftune.data.rows import IGNORED, EncodedRow, RowTuple
    from peftune.forecast.launcher_file import planned_launch
    from peftune.forecast.rehearsal import Subject
    from peftune.model.head import Head
    from peftune.objectives import OBJECTIVES
    from peftune.plan import make_plan

    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=131_072, tie_word_embeddings=False
    )
    learnt = length // 4
    row = EncodedRow((2,) * length, (IGNORED,) * (length - learnt) + (2,) * learnt, (), 0)
    kept, batch = RowTuple([row] * rows * ranks), rows * ranks
    plan = make_plan(
        rows=len(kept),
        world_size=ranks,
        per_device=rows,
        global_batch=batch,
        accumulation=None,
        epochs=1,
        max_steps=None,
        warmup_steps=0,
        warmup_ratio=None,
    )
    recipe, head = recipe_of(quantization, rows, batch), Head(OBJECTIVES["causal"])
    launch = planned_launch("ddp", ranks)
    held_out = RowTuple([row] * rows)
    return Subject(
        recipe, config, head, Batching("causal", 0), kept, held_out, plan, launch, "cuda"
    )


def recipe_of(quantization: str | None, rows: int, batch: int) -> Any:
    import yaml

    from peftune.recipe import load_recipe

    tree: dict[str, Any] = {
        "task": "instruct",
        "output_dir": "outputs/planned",
        "model": {"model_name_or_path": "planned", "dtype": "bfloat16"},
        "data": {"path": "planned", "max_length": 1_000_000},
        "adapter": {"method": "lora", "r": 16, "lora_alpha": 32},
        "train": {
            "per_device_train_batch_size": rows,
            "per_device_eval_batch_size": rows,
            "global_batch_size": batch,
            "num_train_epochs": 1,
            "learning_rate": 1.0e-4,
        },
    }
    if quantization:
        tree["quantization"] = {"method": quantization}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "recipe.yaml"
        file.write_text(yaml.safe_dump(tree))
        return load_recipe(file, [])


if __name__ == "__main__":
    main()
