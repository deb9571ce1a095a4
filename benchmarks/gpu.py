"""Large shapes on one GPU: tokens per second, share of the matrix product, memory, beside TRL.

    python benchmarks/gpu.py --out FILE.json      # under eight minutes on an H100 or H200
    python benchmarks/gpu.py --toy                # that all of it runs, on a CPU

Random weights in the shape of Llama 3.1 8B and 70B, LoRA r=16 on all linear layers, rows of the length
of dialogues with their summaries. Prints a JSON line for each measurement as soon as there is one, and
writes all of them to FILE. TRL is measured where it is installed.
"""

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from rate import matrix_product_rate, needed_operations  # noqa: E402
from shapes import SHAPES, random_model  # noqa: E402
from steps import Steps, by_peftune  # noqa: E402
from workloads import DIALOGUE, SUMMARY, length  # noqa: E402

from peftune.data.order import step_rows  # noqa: E402
from peftune.data.rows import IGNORED, EncodedRow, RowTuple  # noqa: E402

WARMUP, STEPS = 2, 6
Measure = Callable[[torch.device], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--seconds", type=float, default=420, help="start nothing new after these")
    parser.add_argument(
        "--only", type=int, help="measure this one of the plan here, in this process"
    )
    arguments = parser.parse_args()
    measures = plan(arguments.toy)
    if arguments.only is not None:
        name, measure = measures[arguments.only]
        device = torch.device("cpu" if arguments.toy else "cuda")
        print(json.dumps({"name": name, **settings(device), **measure(device)}))
        return
    ends, found = time.monotonic() + arguments.seconds, []
    for number in range(len(measures)):
        if time.monotonic() > ends:
            break
        found.append(measured_alone(number, measures[number][0], arguments.toy))
        write(found, arguments.out)
    found.append({"name": "ratios", **ratios(found)})
    write(found, arguments.out)


def write(found: list[dict[str, Any]], file: str | None) -> None:
    print(json.dumps(found[-1]), flush=True)
    if file:
        Path(file).write_text(json.dumps(found, indent=2) + "\n")


def measured_alone(number: int, name: str, toy: bool) -> dict[str, Any]:
    """A measurement in a process of its own: Liger's kernels replace code of transformers for good."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--only", str(number), *(["--toy"] if toy else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    took = {"process_s": time.monotonic() - started}
    if done.returncode:
        return {
            "name": name,
            "error": (done.stderr.strip().splitlines() or ["?"])[-1][:300],
            **took,
        }
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
    return {**json.loads(lines[-1]), **took}


def ratios(found: list[dict[str, Any]]) -> dict[str, Any]:
    """For each kind of work, peftune's tokens per second over those of each other trainer that was
    measured in the same round: the median, and all of them."""
    rates = defaultdict(list)
    for one in found:
        work, _, trainer = one["name"].rpartition(", ")
        rates[work, trainer].append(one.get("tokens_per_second"))
    paired = {}
    for (work, trainer), theirs in rates.items():
        ours = rates.get((work, "peftune"), [])
        pairs = [a / b for a, b in zip(ours, theirs, strict=False) if a and b]
        if pairs and trainer != "peftune":
            paired[f"{work}, {trainer}"] = {"median": statistics.median(pairs), "all": pairs}
    return paired


def settings(device: torch.device) -> dict[str, Any]:
    packages = ("torch", "transformers", "peft", "bitsandbytes", "trl", "liger_kernel")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {name: version(name) for name in packages if find_spec(name)},
    }


def plan(toy: bool) -> list[tuple[str, Measure]]:
    """What is measured, the most important first; trainers take turns."""
    shape, short, long = ("toy", 256, 512) if toy else ("8b", 4096, 16_384)
    peers = ["trl-best", "trl"] if find_spec("trl") else []
    turn = [
        speed_of(shape, quantized, short, trainer)
        for quantized in (False, True)
        for trainer in ("peftune", *peers[:1])
    ]
    longer = [speed_of(shape, quantized, long, "peftune") for quantized in (False, True)]
    large, tokens = ("toy", 512) if toy else ("70b", 4096)
    memory = (f"QLoRA NF4 {large}, one step", partial(one_step, large, tokens))
    context = (f"longest context, LoRA {shape}", partial(longest, shape, 512 if toy else 1 << 20))
    if toy:
        return [*turn, *longer, memory, context]
    again = [speed_of(shape, False, tokens, one) for tokens in (long, short) for one in peers]
    return [*turn, *longer, memory, *turn, *longer, *turn, context, *again]


def speed_of(shape: str, quantized: bool, tokens: int, trainer: str) -> tuple[str, Measure]:
    kind = "QLoRA NF4" if quantized else "LoRA"
    name = f"{kind} {shape}, {tokens} tokens, {trainer}"
    return name, partial(speed, shape, quantized, tokens, trainer)


def speed(
    shape: str, quantized: bool, tokens: int, trainer: str, device: torch.device
) -> dict[str, Any]:
    """Steps of about so many tokens, of which the first are not counted."""
    rows = dialogues(tokens * STEPS, SHAPES[shape]["vocab_size"])
    batch = max(1, round(len(rows) / STEPS))
    rows = RowTuple(rows[: batch * STEPS])
    reset(device)
    model = random_model(shape, quantized, device)
    needed = needed_operations(model, [vars_of(row) for row in rows])
    if trainer == "peftune":
        steps = by_peftune(model, rows, batch, False, device)
    else:
        steps = by_trl(model, rows, batch, trainer == "trl-best", device)
    counted = sum(len(row.input_ids) for row in rows) / STEPS
    seconds = statistics.median(step[0] for step in steps[WARMUP:])
    rate = matrix_product_rate("bfloat16", torch.get_num_threads(), device.type)
    return {
        "rows_per_step": batch,
        "tokens_per_second": counted / seconds,
        "share_of_matrix_product": counted / seconds * needed / rate,
        "matrix_product_tflops": rate / 1e12,
        "peak_gb": peak(device),
        "first": steps[0][1:],
        "last": steps[-1][1:],
    }


def vars_of(row: EncodedRow) -> dict[str, Any]:
    return {"input_ids": row.input_ids, "labels": row.labels}


def dialogues(tokens: int, vocabulary: int) -> list[EncodedRow]:
    """Rows with log-normal prompts and completions, as `workloads.py` has them."""
    draw, rows = random.Random(0), []
    while tokens > 0:
        prompt, learnt = length(draw, *DIALOGUE), length(draw, *SUMMARY)
        ids = tuple(draw.randrange(2, vocabulary) for _ in range(prompt + learnt))
        rows.append(EncodedRow(ids, (IGNORED,) * prompt + ids[prompt:], (), len(rows)))
        tokens -= len(ids)
    return rows


def by_trl(model: Any, rows: RowTuple, batch: int, best: bool, device: torch.device) -> Steps:
    """TRL's `SFTTrainer` on the rows of the same steps; at its best with Liger's kernels on a GPU."""
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    steps: Steps = []
    ends = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                norm = float(logs["grad_norm"])
                steps.append((time.perf_counter() - ends[-1], logs["loss"], norm))

    order = [i for step in range(len(rows) // batch) for i in step_rows(0, step, len(rows), batch)]
    data = [
        {"input_ids": row.input_ids, "completion_mask": [int(x >= 0) for x in row.labels]}
        for row in (rows[i] for i in order)
    ]
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    arguments = SFTConfig(
        output_dir="/tmp/trl",
        per_device_train_batch_size=batch,
        max_steps=len(rows) // batch,
        learning_rate=1.0e-4,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=device.type == "cuda",
        use_cpu=device.type == "cpu",
        gradient_checkpointing=False,
        use_liger_kernel=best and device.type == "cuda" and find_spec("liger_kernel") is not None,
        completion_only_loss=True,
        max_length=None,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(data),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="</s>"
        ),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"
        ),
        callbacks=[Clock()],
    )
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    trainer.train()
    return steps


def one_step(shape: str, tokens: int, device: torch.device) -> dict[str, Any]:
    """Memory of a quantized model and one recomputing step."""
    rows = RowTuple(dialogues(tokens, SHAPES[shape]["vocab_size"]))
    reset(device)
    model = random_model(shape, True, device)
    held = peak(device)
    ((_, loss, norm),) = by_peftune(model, rows, len(rows), True, device)
    return {"weights_peak_gb": held, "peak_gb": peak(device), "loss": loss, "grad_norm": norm}


def longest(shape: str, most: int, device: torch.device) -> dict[str, Any]:
    """The longest single row, by doubling, that a recomputing step has memory for."""
    fitted, tokens = 0, 1 << 15 if device.type == "cuda" else 256
    while tokens <= most:
        ids = torch.randint(2, SHAPES[shape]["vocab_size"], (tokens,)).tolist()
        row = EncodedRow(tuple(ids), (IGNORED, *ids[1:]), (), 0)
        reset(device)
        try:
            by_peftune(random_model(shape, False, device), RowTuple([row]), 1, True, device)
        except torch.OutOfMemoryError:
            break
        fitted, tokens = tokens, tokens * 2
    return {"tokens": fitted, "peak_gb": peak(device)}


def reset(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """GB of the GPU since `reset`; 0 on a CPU, where it means nothing."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


if __name__ == "__main__":
    main()
