"""What was planned beside what was measured, on CPU ranks: memory of a rank, and time of a step.

    python benchmarks/forecast.py --each 8 --out benchmarks/forecast.json

Set-ups are drawn: three classes of models, LoRA and NF4, widths, lengths, ranks, recomputation. Each
is a launch of its own, because DeepSpeed keeps an engine that is done with, and trains twice: for its
memory, under torch's profiler, and for its time. Prints a JSON line for each.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

LAYOUTS = ("cpu", "cpu_ddp", "cpu_zero2", "cpu_zero3")
STEPS, WARMUP = 11, 3
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--each", type=int, default=8, help="set-ups of each layout")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=[*LAYOUTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of set-ups, from 0")
    parser.add_argument("--out")
    parser.add_argument(
        "--toy", action="store_true", help="small models, to see that all of it runs"
    )
    parser.add_argument("--job", help="what a launched process computes")
    arguments = parser.parse_args()
    if arguments.job:
        measure(json.loads(Path(arguments.job).read_text()))
        return
    found = []
    for layout in arguments.layouts:
        draw = random.Random(f"{arguments.seed} {layout}")
        set_ups = [drawn(draw, index, arguments.toy) for index in range(arguments.each)]
        for index in arguments.only or range(arguments.each):
            found.append(launched(layout, set_ups[index]))
            if arguments.out:
                Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")


def drawn(draw: random.Random, index: int, toy: bool) -> dict[str, Any]:
    """One set-up; classes and quantization take turns."""
    kind = ("decoder", "encoder", "encoder-decoder")[index % 3]
    heads = draw.choice((4, 8))
    return {
        "kind": kind,
        "quantization": "bnb-nf4" if index % 2 else None,
        "dtype": "float32" if index % 4 < 2 else "bfloat16",
        "hidden": 64 if toy else 32 * draw.randint(6, 14),
        "layers": 2 if toy else draw.randint(2, 6),
        "heads": heads,
        "vocabulary": 512 if toy else draw.choice((4096, 8192, 16_384)),
        "length": 24 if toy else draw.choice((64, 96, 128, 192, 256)),
        "rows": draw.choice((2, 4, 8)),
        "passes": draw.choice((1, 1, 2)),
        "rank": draw.choice((4, 8, 16, 32)),
        "recomputation": draw.choice((False, False, True, "selective")),
    }


def launched(layout: str, set_up: dict[str, Any]) -> dict[str, Any]:
    """A set-up with what was planned and measured."""
    with tempfile.TemporaryDirectory() as place:
        job = Path(place) / "job.json"
        job.write_text(json.dumps({"layout": layout, "set_up": set_up, "place": place}))
        config = REPOSITORY / "accelerate_configs" / f"{layout}.yaml"
        command = [str(Path(sys.executable).with_name("accelerate")), "launch"]
        command += ["--config_file", str(config), "--num_cpu_threads_per_process", "1"]
        command += [__file__, "--job", str(job)]
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        environ |= {"PEFTUNE_CACHE": str(Path(place) / "cache"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environ)
    if done.returncode:
        raise SystemExit(f"{layout} failed")
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    print(line, flush=True)
    return json.loads(line)


def measure(job: dict[str, Any]) -> None:
    """One rank of a launch."""
    from peftune.engines.launch import read_launch
    from peftune.engines.ranks import joined_ranks

    launch = read_launch(os.environ)
    with joined_ranks(launch, (), job["place"]) as ranks:
        folder = Path(job["place"]) / "set-up"
        if ranks.is_main:
            write_set_up(job["set_up"], folder, ranks.world_size)
        ranks.wait()
        everyone = ranks.gather_objects([measured(folder, launch, ranks)])
        if ranks.is_main:
            worst = max(everyone, key=lambda one: one["measured_mb"])
            print(json.dumps({"layout": job["layout"], **job["set_up"], **worst}), flush=True)


def write_set_up(set_up: dict[str, Any], folder: Path, world_size: int) -> None:
    """Model, rows and recipe of a set-up in `folder`."""
    import dataclasses

    import yaml
    from workloads import WORKLOADS, recipe, write

    base = WORKLOADS[set_up["kind"]]
    batch = set_up["rows"] * set_up["passes"] * world_size

    def row(draw: random.Random, every: list[str]) -> dict[str, Any]:
        tokens = draw.randint(set_up["length"] // 2, set_up["length"] - 2)
        text = " ".join(draw.choices(every, k=tokens))
        if set_up["kind"] == "encoder":
            return {"text": text, "label": draw.choice(("negative", "positive"))}
        answer = " ".join(draw.choices(every, k=max(4, tokens // 5)))
        return {"prompt": text, "completion": answer}

    made = dataclasses.replace(
        base,
        vocabulary=set_up["vocabulary"],
        batch=set_up["rows"],
        model=lambda vocabulary: model_of(set_up, vocabulary),
        row=row,
    )
    write(made, batch * STEPS, folder)
    options: dict[str, Any] = {
        "model": {"dtype": set_up["dtype"]},
        "adapter": {"r": set_up["rank"], "lora_alpha": set_up["rank"]},
        "train": {
            "global_batch_size": batch,
            "gradient_checkpointing": set_up["recomputation"],
        },
    }
    if set_up["quantization"]:
        options["quantization"] = {"method": set_up["quantization"]}
    tree = recipe(made, folder, STEPS, options)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))


def model_of(set_up: dict[str, Any], vocabulary: int) -> Any:
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    hidden, layers, heads = set_up["hidden"], set_up["layers"], set_up["heads"]
    sizes: dict[str, Any] = {"vocab_size": vocabulary, "pad_token_id": 0}
    match set_up["kind"]:
        case "decoder":
            return LlamaForCausalLM(
                LlamaConfig(
                    **sizes,
                    hidden_size=hidden,
                    intermediate_size=hidden * 11 // 4,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    num_key_value_heads=heads // 2,
                    bos_token_id=1,
                    eos_token_id=1,
                    tie_word_embeddings=True,
                )
            )
        case "encoder":
            return BertForSequenceClassification(
                BertConfig(
                    **sizes,
                    hidden_size=hidden,
                    intermediate_size=4 * hidden,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    hidden_dropout_prob=0.0,
                    attention_probs_dropout_prob=0.0,
                    num_labels=2,
                )
            )
    return T5ForConditionalGeneration(
        T5Config(
            **sizes,
            d_model=hidden,
            d_ff=4 * hidden,
            d_kv=hidden // heads,
            num_layers=max(1, layers // 2),
            num_heads=heads,
            dropout_rate=0.0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def measured(folder: Path, launch: Any, ranks: Any) -> dict[str, Any]:
    """What this rank took, and what was planned for it."""
    from peftune.context import Run
    from peftune.forecast.forecast import shared_out, subject_of
    from peftune.forecast.rehearsal import rehearse
    from peftune.forecast.speed import measured_device
    from peftune.preparation import plan_for, prepare_data
    from peftune.recipe import load_recipe

    recipe = load_recipe(folder / "recipe.yaml", [])
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    context = Run(recipe, launch, ranks, prepared, plan, folder / "run")
    most, last_loss = peak(context)
    subject = subject_of(recipe, prepared, plan, launch, "cpu")
    rehearsed = rehearse(subject)

    def plan_now() -> Any:
        return shared_out(subject, rehearsed, measured_device(ranks))

    planned = plan_now()
    computing, ratio = step_seconds(context, lambda: plan_now().step_seconds)
    return {
        # What is measured begins with the engine.
        "planned_mb": max(planned.training_bytes, planned.phases.get("start", 0)) / 1e6,
        "measured_mb": most / 1e6,
        "planned_s": computing * ratio,
        "computing_s": computing,
        "last_loss": last_loss,
        "parts_mb": {name: size / 1e6 for name, size in planned.parts.items()},
    }


def peak(context: Any) -> tuple[int, float]:
    """The most bytes of tensors while an engine is made and trains, and the last loss."""
    from peftune.forecast.measuring import allocations
    from peftune.pipeline import adapted_model, start_engine
    from peftune.training.loop import train

    model = adapted_model(context)
    with allocations(context.ranks.device) as found:
        engine = start_engine(context, model)
        del model
        losses = [record.loss for record in train(context.training(engine))]
    return found.peak, losses[-1]


def step_seconds(context: Any, plan: Callable[[], float]) -> tuple[float, float]:
    """A step of mean length, by the median time of a token of the steps after the first ones, and the
    median of what a plan says over what the steps before and after it take.

    Every other step is followed by a plan, because the speed of a machine that others use changes; and a
    process's own time says more there than the clock on the wall.
    """
    from peftune.pipeline import adapted_model, start_engine
    from peftune.training.loop import train

    clock = time.process_time
    engine = start_engine(context, adapted_model(context))
    tokens, each, plans, started = [], [], {}, clock()
    for record in train(context.training(engine)):
        tokens.append(record.tokens)
        each.append((clock() - started) / record.tokens)
        if WARMUP < record.step < STEPS and (record.step - WARMUP) % 2:
            plans[record.step] = plan()
        started = clock()
    length = statistics.mean(tokens)
    ratios = [
        seconds / (length * statistics.mean(each[step - 1 : step + 1]))
        for step, seconds in plans.items()
    ]
    return statistics.median(each[WARMUP:]) * length, statistics.median(ratios)


if __name__ == "__main__":
    main()
