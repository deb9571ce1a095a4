"""Starts peftune/run.py under a launcher file, as a person would, from another folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """One thread a rank, no network, nothing of this process's launch variables."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def launch_command(config: str, port: int, *more: str) -> list[str]:
    accelerate = str(Path(sys.executable).parent / "accelerate")
    file = REPOSITORY / "accelerate_configs" / f"{config}.yaml"
    script = str(REPOSITORY / "peftune" / "run.py")
    flags = ["--config_file", str(file), "--main_process_port", str(port)]
    return [accelerate, "launch", *flags, *more, script]


def launch(config: str, recipe: Path, run: Path, *overrides: str) -> Path:
    """Train and return the run's folder; fails with the end of the output."""
    command = [*launch_command(config, free_port()), str(recipe), f"output_dir={run}", *overrides]
    done = subprocess.run(
        command, cwd=run.parent, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return run


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adapter(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter_model.safetensors")


def largest_difference(reference: Path, other: Path, key: str) -> float:
    """Largest relative difference of a number over all lines of metrics.jsonl."""
    ours, theirs = metrics(reference), metrics(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) if key in a]
    assert pairs
    return max(abs(a - b) / abs(a) for a, b in pairs)


def adapter_difference(reference: Path, other: Path) -> float:
    """Largest absolute difference between two saved adapters."""
    ours, theirs = adapter(reference), adapter(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
