"""Every benchmark runs; how fast is for people to read. `checkpoint/test_kills.py` has the kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.launching import environment


@pytest.mark.thorough
def test_preparation_is_measured(model_folder: Path, tmp_path: Path) -> None:
    said = run("prepare.py", tmp_path, "--model", str(model_folder), "--rows", "40")
    found = [json.loads(line) for line in said.splitlines()]
    assert [line["rows"] for line in found] == [40]
    assert all(line["rows_per_second"] > 0 and line["tokenizer_alone"] > 0 for line in found)


def run(name: str, folder: Path, *arguments: str) -> str:
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / name), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.thorough
def test_resuming_is_measured(tmp_path: Path) -> None:
    small = ("--rows", "40", "--pairs", "1", "--width", "64", "--layers", "1", "--rank", "4")
    early, stall = map(json.loads, run("resume.py", tmp_path, *small).splitlines()[-2:])
    assert early["early_s"] > 0 and len(early["ratios"]) == 1
    assert stall["steps"] == 24 and len(stall["stalls"]) == 4 and stall["stall_s"] > 0


@pytest.mark.thorough
def test_trainers_are_compared(tmp_path: Path) -> None:
    """Without other trainers, which have environments of their own."""
    run("compare.py", tmp_path, "--kind", "tiny", "--steps", "4", "--rounds", "2", "--out", ".")
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    assert len(found["contenders"]["peftune"]) == 2
    assert all(one["tokens_per_second"] > 0 for one in found["contenders"]["peftune"])
    assert file.with_suffix(".png").is_file()


@pytest.mark.thorough
def test_shapes_for_a_gpu_are_measured_in_toy_size(tmp_path: Path) -> None:
    said = run("gpu.py", tmp_path, "--toy", "--out", str(tmp_path / "gpu.json"))
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert json.loads((tmp_path / "gpu.json").read_text()) == lines
    names = [line["name"] for line in lines]
    assert "LoRA toy, 512 tokens, peftune" in names
    assert names[-1] == "longest context, LoRA toy" and lines[-1]["tokens"] == 512


@pytest.mark.thorough
def test_merging_is_measured(tmp_path: Path) -> None:
    sizes = ("--layers", "1", "--width", "64", "--pairs", "1")
    found = json.loads(run("merge.py", tmp_path, *sizes))
    assert found["bytes"] > 0 and found["medians"].keys() == {"copy", "peftune", "peft"}
    assert all(way["work_s"] > 0 and way["peak_mb"] > 0 for way in found["medians"].values())


@pytest.mark.thorough
def test_the_start_is_measured(tmp_path: Path) -> None:
    lines = run("start.py", tmp_path, "--pairs", "1").splitlines()
    assert len(lines) == 2 and all('"ratio"' in line for line in lines)
