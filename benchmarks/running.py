"""Runs one contender as a whole process and reads what it wrote."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from workloads import Workload

REPOSITORY = Path(__file__).resolve().parent.parent
TRL = {"trl": {}, "trl-best": {"gradient_checkpointing": False}, "trl-packing": {"packing": True}}
FACTORY = "llamafactory"
SCRIPTS = {FACTORY: "llamafactory_sft.py"}
"""Contenders that are not run by `transformers_trainer.py`, and their environments beside the others."""
Result = dict[str, Any]


def kind_of(workload: Workload) -> str:
    return "decoder" if workload.name == "tiny" else workload.name


def runner(
    workload: Workload, folder: Path, arguments: argparse.Namespace
) -> Callable[[str], Result]:
    def run(name: str) -> Result:
        print(f"{name} …", file=sys.stderr)
        if name == "peftune":
            return peftune(folder, arguments.threads)
        return other(name, workload, folder, arguments)

    return run


def environment(threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }


def peftune(
    folder: Path, threads: int, launcher: str = "cpu", overrides: tuple[str, ...] = ()
) -> Result:
    """The documented command with `threads` for each process, and what it wrote."""
    started = time.time()
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--config_file"]
    command = [
        *(*launch, str(REPOSITORY / "accelerate_configs" / f"{launcher}.yaml")),
        *("--num_cpu_threads_per_process", str(threads)),
        *(str(REPOSITORY / "peftune" / "run.py"), str(folder / "recipe.yaml")),
        "overwrite_output_dir=true",
        *overrides,
    ]
    peak = peak_of(command, environment(threads), folder / "peftune.log")
    run = folder / "run"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timings = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    steps = [line for line in metrics if "loss" in line]
    first = (run / "timings.jsonl").stat().st_mtime - timings[-1]["wall_s"] + timings[0]["wall_s"]
    return {
        "seconds": [
            line["tokens"] / timing["tokens_per_second"]
            for line, timing in zip(steps, timings, strict=True)
        ],
        "first_step_s": first - started,
        "loss": [line["loss"] for line in steps],
        "grad_norm": [line["grad_norm"] for line in steps],
        "peak_bytes": peak,
        "versions": versions(sys.executable, ["torch", "transformers", "peft", "accelerate"]),
    }


def other(name: str, workload: Workload, folder: Path, arguments: argparse.Namespace) -> Result:
    started = time.time()
    job = {
        "kind": kind_of(workload),
        "trainer": "trl" if name in TRL else "transformers",
        "packages": ["trl"] if name in TRL else [],
        "model": str(folder / "model"),
        "rows": str(folder / "rows.jsonl"),
        "start": str(folder / "start.safetensors"),
        "result": str(folder / "result.json"),
        "output": str(folder / name),
        "dtype": arguments.dtype,
        "quantization": arguments.quantization,
        "batch": workload.batch,
        "steps": arguments.steps,
        "threads": arguments.threads,
        "settings": TRL.get(name, {}),
    }
    (folder / "job.json").write_text(json.dumps(job))
    script = REPOSITORY / "benchmarks" / "contenders" / SCRIPTS.get(name, "transformers_trainer.py")
    place = f"{arguments.peers}-{name}" if name in SCRIPTS else arguments.peers
    command = [str(Path(place) / "bin" / "python"), str(script), str(folder / "job.json")]
    peak = peak_of(command, environment(arguments.threads), folder / f"{name}.log")
    found: Result = json.loads((folder / "result.json").read_text())
    ends = found.pop("ends")
    seconds = [later - earlier for earlier, later in pairwise(ends)]
    return {
        **found,
        "seconds": [ends[0] - found["started"], *seconds],
        "first_step_s": ends[0] - started,
        "peak_bytes": peak,
    }


def peak_of(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Run a command to its end; the largest resident memory of any of its processes, in bytes."""
    with log.open("w") as out:
        wrapped = [sys.executable, str(REPOSITORY / "benchmarks" / "peak.py"), *command]
        done = subprocess.run(
            wrapped, env=environment, stdout=subprocess.PIPE, stderr=out, text=True, cwd=REPOSITORY
        )
    if done.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}{done.stdout[-2000:]}"
        )
    return int(done.stdout.splitlines()[-1])


def versions(python: str, packages: list[str]) -> dict[str, str]:
    code = f"from importlib.metadata import version as v; print(*map(v, {packages!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(packages, found.stdout.split(), strict=True))
