"""SLURM's commands as scripts that really start what they are given, on this machine."""

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peftune.engines.launcher_file import DEFAULT, read_launcher_file
from peftune.schedulers.job import Job, Limits, make_job, read_site
from tests.conftest import write_recipe

SBATCH = """\
printf '%s\\n' "$*" >> "$LOG/sbatch"
echo "$(( $(wc -l < "$LOG/sbatch") + 40 ))"
"""
SCONTROL = """\
case "$1" in
show) echo 127.0.0.1; echo elsewhere ;;
*) echo "$*" >> "$LOG/scontrol" ;;
esac
"""
# Starts its command once for each node and hands USR1 on, as srun does; its code is the largest.
SRUN = """\
trap 'kill -USR1 $first $second' USR1
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
for task in $first $second; do
    while wait $task; now=$?; kill -0 $task 2>/dev/null; do :; done
    wait $task; now=$?
    [ "$now" -gt "${code:-0}" ] && code=$now
done
exit "${code:-0}"
"""
# Stands for the interpreter: says what it was given, and ends as it was told to.
PYTHON = """\
printf '%s\\n' "$@" > "$LOG/arguments-${SLURM_NODEID:-none}"
env > "$LOG/environment-${SLURM_NODEID:-none}"
trap 'echo told >> "$LOG/told"; exit 75' USR1
: > "$LOG/began-${SLURM_NODEID:-none}"
while [ -f "$LOG/long" ]; do read -r -t 0.02 < /dev/zero; done
exit "$(cat "$LOG/code-${SLURM_NODEID:-none}" 2>/dev/null || echo 0)"
"""


@dataclass
class Site:
    """A folder of commands, and what they have written down."""

    folder: Path
    recipe: Path

    def said(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.is_file() else ""

    def arguments(self, node: int | str) -> list[str]:
        return self.said(f"arguments-{node}").splitlines()

    def environment(self, node: int | str) -> dict[str, str]:
        lines = self.said(f"environment-{node}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def job(self, *overrides: str, site: str = "", **more: Any) -> Job:
        """Two nodes with one process each, whose interpreter is the stub."""
        file = self.folder / "site.yaml"
        file.write_text(f"python: {self.folder}/bin/python\n{site}")
        launcher = read_launcher_file(more.pop("launcher", DEFAULT))
        sweep, nodes = more.pop("sweep", ()), more.pop("nodes", 2)
        limits = Limits(**more)
        return make_job(
            self.recipe, overrides, launcher, (nodes, None), read_site(file), limits, sweep
        )

    def start(
        self, script: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The script as SLURM would start it."""
        names = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "n[1-2]", **(variables or {})}
        return subprocess.Popen(
            ["bash", "-c", script],
            env={**os.environ, **names, "LOG": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, variables: Mapping[str, str] | None = None) -> int:
        """Its exit code."""
        started = self.start(script, variables)
        started.communicate(timeout=60)
        return started.returncode

    def ends_with(self, codes: Sequence[int]) -> None:
        for node, code in enumerate(codes):
            (self.folder / f"code-{node}").write_text(str(code))


TREE = {
    "task": "summarize",
    "model": {"model_name_or_path": "embedded:decoder", "dtype": "float32"},
    "data": {
        "path": "embedded:dialogues",
        "columns": {"completion": "summary"},
        "prompt_template": "{dialogue}\nSummary:",
    },
    "adapter": {"method": "lora"},
    "train": {
        "per_device_train_batch_size": 2,
        "global_batch_size": 8,
        "max_steps": 6,
        "learning_rate": 1.0e-3,
    },
}
"""Nothing of it is loaded."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    commands = {"sbatch": SBATCH, "scontrol": SCONTROL, "srun": SRUN, "python": PYTHON}
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    return Site(tmp_path, write_recipe(tmp_path, {**TREE, "output_dir": str(tmp_path / "run")}))
