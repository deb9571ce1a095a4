"""Preparation against the tokenizer alone: rows per second, peak memory, and the second start.

    python benchmarks/prepare.py --model MODEL_FOLDER --rows 100000 1000000

Makes rows of prompt and completion from a seed. The tokenizer alone is `encode_batch` of the same
texts on all cores, read from the same file in chunks, and nothing else. Peak memory is that of the
largest process. Prints one JSON line for each number of rows.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer

CHUNK = 10_000
SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "ver", "ing", "ston", "al")


def write_rows(file: Path, rows: int) -> None:
    """Rows of about 50 tokens, of unequal length, none like another."""
    draw = random.Random(1)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(5000)]
    with file.open("w", encoding="utf-8") as out:
        for index in range(rows):
            prompt = " ".join(draw.choices(words, k=draw.randint(6, 24)))
            completion = " ".join(draw.choices(words, k=draw.randint(2, 10)))
            out.write(json.dumps({"prompt": f"{index}: {prompt}", "completion": completion}) + "\n")


def tokenizer_alone(file: Path, model: str) -> float:
    """Seconds in `encode_batch` for all texts of the file."""
    backend = AutoTokenizer.from_pretrained(model).backend_tokenizer
    seconds = 0.0
    with file.open(encoding="utf-8") as lines:
        while chunk := [json.loads(line) for line in islice(lines, CHUNK)]:
            texts = [f"{row['prompt']} {row['completion']}" for row in chunk]
            started = time.perf_counter()
            backend.encode_batch(texts)
            seconds += time.perf_counter() - started
    return seconds


def prepare(recipe: Path, cache: Path) -> float:
    """Seconds of the whole command, imports included."""
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("peftune")), "prepare", str(recipe)]
    environment = {**os.environ, "PEFTUNE_CACHE": str(cache)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(rows: int, model: str, folder: Path) -> dict[str, Any]:
    file, recipe = folder / f"{rows}.jsonl", folder / f"{rows}.yaml"
    write_rows(file, rows)
    tree = {
        "task": "instruct",
        "output_dir": str(folder / "run"),
        "model": {"model_name_or_path": model},
        "data": {"train": str(file)},
        "adapter": {"method": "lora"},
        "train": {"gradient_accumulation_steps": 1, "max_steps": 1, "learning_rate": 1.0e-3},
    }
    recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    seconds = prepare(recipe, folder / "cache")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    again = prepare(recipe, folder / "cache")
    alone = tokenizer_alone(file, model)
    return {
        "rows": rows,
        "cores": len(os.sched_getaffinity(0)),
        "rows_per_second": round(rows / seconds),
        "tokenizer_alone": round(rows / alone),
        "ratio": round(alone / seconds, 3),
        "peak_memory_mb": round(peak),
        "second_start_s": round(again, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(rows, str(Path(arguments.model).resolve()), Path(folder))))


if __name__ == "__main__":
    main()
