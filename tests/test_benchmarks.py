"""Every benchmark runs; how fast is for people to read. `checkpoint/test_kills.py` has the kills."""

import json
import os
import shutil
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
    assert not [line for line in lines if "error" in line]
    assert names[-2:] == ["longest context, LoRA toy", "ratios"] and lines[-2]["tokens"] == 512


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


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.thorough
@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("slurmctld") is None, reason="needs slurmctld, slurmd and munge")
def test_a_real_slurm_queues_a_disturbed_run_again(tmp_path: Path) -> None:
    """Asked to stop and with a node lost, the run ends as the one that nobody disturbed."""
    small = [
        "data.max_train_samples=64",
        "data.max_validation_samples=4",
        "data.max_test_samples=4",
    ]
    small += ["train.num_train_epochs=null", "train.max_steps=12", "train.eval_steps=4"]
    small += ["export.merge=false", "evaluation.max_new_tokens=4"]
    said = run("slurm.py", tmp_path, "--only", "signal,node", *small)
    results = [json.loads(line) for line in said.splitlines()]
    assert [one["run"] for one in results] == ["undisturbed", "signal", "node"]
    for one in results:
        assert one["JobState"] == "COMPLETED" and all(one["same"].values()), one
    assert [one["Restarts"] for one in results] == ["0", "1", "1"]


@pytest.mark.thorough
@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("tc") is None, reason="needs network namespaces and tc")
def test_two_hosts_lose_each_other(tmp_path: Path) -> None:
    said = run("hosts.py", tmp_path, "--engines", "cpu_ddp", "--only", "cut,dead")
    undisturbed, cut, dead = (json.loads(line) for line in said.splitlines())
    assert undisturbed["codes"] == [0, 0]
    for one in (cut, dead):
        assert (one["codes"], one["resumed"], one["same"]) == ([1], [0, 0], True)
        assert any("rank 1 on peftune-b is gone, during step " in line for line in one["said"])


@pytest.mark.thorough
def test_plans_are_compared(tmp_path: Path) -> None:
    chosen = ("--toy", "--each", "1", "--layouts", "cpu", "cpu_zero2")
    said = run("forecast.py", tmp_path, *chosen, "--out", "found.json")
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert [one["layout"] for one in found] == ["cpu", "cpu_zero2"]
    assert all(one["measured_mb"] > 1 and one["computing_s"] > 0 for one in found)
