"""How long resuming takes early and late in a run, and how long a save holds training up.

python benchmarks/resume.py [--rows 200000] [--pairs 5] [--late 1000000] [--width 1024] [--layers 8]

The first makes a store of so many rows, trains ten steps, and turns the checkpoint into one of step
`--late`; then it starts both in turn and takes the seconds from the start of the process to the end of
the first step. The second trains a LoRA on a random Llama of `--width` and `--layers` and saves after
every sixth step: the seconds that a save holds training up, those that copying the same tensors in
memory takes, and those of the write in the background. Prints one JSON line for each.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peftune import fitting
from peftune.checkpoint.folder import MANIFEST, seal
from peftune.cli import train_recipe

EMBEDDED = Path(fitting.__file__).parent / "embedded" / "decoder"


def recipe(folder: Path, model: str, data: Path, **train: Any) -> Path:
    """A recipe file in `folder` whose run is `folder/run`."""
    tree = {
        "task": "summarize",
        "output_dir": str(folder / "run"),
        "model": {"model_name_or_path": model, "dtype": "float32"},
        "data": {"train": str(data), "accept": {"duplicates": 1.0}},
        "adapter": {"method": "lora", "r": train.pop("r", 8)},
        "train": {"per_device_train_batch_size": 2, "global_batch_size": 2, **train},
        "export": {"merge": False, "verify": False},
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def write_rows(file: Path, rows: int) -> None:
    """Short rows, none like another."""
    draw = random.Random(1)
    with file.open("w", encoding="utf-8") as out:
        for index in range(rows):
            number = draw.randrange(10**6)
            row = {"prompt": f"{index} and {number}:", "completion": f"{number % 97} it is."}
            out.write(json.dumps(row) + "\n")


def first_step(file: Path, checkpoint: str) -> float:
    """Seconds from the start of the process to the end of the first step after `checkpoint`."""
    run, log = file.parent / "run", file.parent / "run" / "timings.jsonl"
    before, started = log.stat().st_size, time.perf_counter()
    peftune = str(Path(sys.executable).with_name("peftune"))
    process = subprocess.Popen(
        [peftune, "train", str(file), f"resume={checkpoint}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while log.stat().st_size == before:
        if process.poll() is not None:
            raise RuntimeError(f"{run} did not go on from {checkpoint}")
        time.sleep(0.002)
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    return seconds


def age(run: Path, late: int) -> str:
    """Turn checkpoint-10 of a run into one of step `late`, beside it; returns its name."""
    young, old = run / "checkpoint-10", run / f"checkpoint-{late}"
    shutil.copytree(young, old)
    progress = json.loads((old / "progress.json").read_text(encoding="utf-8"))
    (old / "progress.json").write_text(json.dumps({**progress, "step": late}), encoding="utf-8")
    state = load_file(old / "state.safetensors")
    for name, tensor in state.items():
        if name.endswith(":step"):
            tensor.fill_(late)
    save_file(state, old / "state.safetensors")
    (old / MANIFEST).unlink()
    seal(old)
    return old.name


def early_and_late(folder: Path, rows: int, pairs: int, late: int) -> dict[str, Any]:
    """Medians of both, and the median of their ratios."""
    write_rows(folder / "rows.jsonl", rows)
    steps = {"max_steps": 2 * late, "learning_rate": 1.0e-4, "save_steps": 10}
    file = recipe(folder, "embedded:decoder", folder / "rows.jsonl", **steps)
    run = folder / "run"
    peftune = str(Path(sys.executable).with_name("peftune"))
    process = subprocess.Popen([peftune, "train", str(file)], stderr=subprocess.DEVNULL)
    while not (run / "checkpoint-10").exists():
        if process.poll() is not None:
            raise RuntimeError(f"{file} ended before its tenth step")
        time.sleep(0.01)
    process.kill()
    process.wait()
    names = ("checkpoint-10", age(run, late))
    kept = {name: shutil.copytree(run / name, folder / name) for name in names}
    found: list[list[float]] = []
    for _ in range(pairs):
        pair = []
        for name in names:
            for path in run.glob("checkpoint-*"):
                shutil.rmtree(path)
            shutil.copytree(kept[name], run / name)
            pair.append(first_step(file, name))
        found.append(pair)
    early, later = zip(*found, strict=True)
    return {
        "rows": rows,
        "early_s": round(statistics.median(early), 2),
        "late_s": round(statistics.median(later), 2),
        "late_by_early": round(statistics.median(b / a for a, b in found), 3),
        "ratios": [round(b / a, 3) for a, b in found],
    }


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same, and how long it took."""

    def call(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - started)
        return result

    return call


def stall(folder: Path, width: int, layers: int, rank: int) -> dict[str, Any]:
    """How long saves hold training up, beside a copy in memory and the write."""
    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=8192, num_attention_heads=8, **shape)
    shutil.copytree(EMBEDDED, folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    write_rows(folder / "rows.jsonl", 100)
    steps = {"max_steps": 24, "learning_rate": 1.0e-4, "save_steps": 6, "save_total_limit": 1}
    file = recipe(folder, str(folder / "model"), folder / "rows.jsonl", r=rank, **steps)
    held: list[float] = []
    written: list[float] = []
    fitting.save_checkpoint = timed(fitting.save_checkpoint, held)
    fitting.write_checkpoint = timed(fitting.write_checkpoint, written)
    train_recipe(str(file), [])
    saved = load_file(folder / "run" / "checkpoint-24" / "state.safetensors")
    copies: list[float] = []
    copy = timed(lambda: [tensor.clone() for tensor in saved.values()], copies)
    # All are kept, because memory that is used again is filled faster.
    kept = [copy() for _ in range(4)]
    del kept
    parameters = sum(t.numel() for n, t in saved.items() if n.startswith("parameter/"))
    timings = (folder / "run" / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "adapter_parameters": parameters,
        "bytes": sum(t.numel() * t.element_size() for t in saved.values()),
        "stall_s": round(statistics.median(held), 3),
        "stalls": [round(one, 3) for one in held],
        "copy_s": round(statistics.median(copies), 3),
        "write_s": round(statistics.median(written), 3),
        "steps": len(timings),
    }


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--late", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rank", type=int, default=384)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PEFTUNE_CACHE", f"{folder}/cache")
        parts = [Path(folder) / name for name in ("start", "stall")]
        for part in parts:
            part.mkdir()
        print(json.dumps(early_and_late(parts[0], chosen.rows, chosen.pairs, chosen.late)))
        print(json.dumps(stall(parts[1], chosen.width, chosen.layers, chosen.rank)))


if __name__ == "__main__":
    main()
