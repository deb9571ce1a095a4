"""What `peftune status` tells from the folder of a run, whoever runs it and wherever."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peftune import cli
from peftune.errors import RecipeError
from peftune.status import Status, read_status
from tests.conftest import write_jsonl

NOW = 1_000_000.0


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def beats(age: float, **more: Any) -> dict[str, Any]:
    def rank(number: int, late: float) -> dict[str, Any]:
        heard = NOW - age - late
        stack = ["peftune/training/loop.py:7 train", f"somewhere.py:{number} wait"]
        place = {"stage": "step 31", "moved": heard, "heard": heard, "stack": stack}
        return {"rank": number, "host": f"host{number}", **place}

    return {"time": NOW - age, **more, "ranks": [rank(0, 0.0), rank(1, 8.0)]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Thirty steps of a hundred, the last ten by a process that was started again."""
    (tmp_path / "recipe.yaml").touch()
    write(tmp_path, "environment.json", {"total_steps": 100})
    losses = [{"step": step, "loss": 2.0 - step / 100} for step in range(1, 31)]
    write_jsonl(tmp_path / "metrics.jsonl", [*losses, {"step": 30, "eval_loss": 1.25}])
    before = [(step, 10.0 * step) for step in range(1, 21)]
    after = [(step, 5.0 + 4.0 * (step - 20)) for step in range(21, 31)]
    write_jsonl(
        tmp_path / "timings.jsonl",
        [{"step": s, "wall_s": w, "tokens_per_second": 50.0 + s} for s, w in [*before, *after]],
    )
    write(tmp_path, "ranks.json", beats(3.0))
    for step in (10, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
    return tmp_path


def test_a_run_at_work(run: Path) -> None:
    found = read_status(run, NOW)
    assert (found.state, found.step, found.total_steps) == ("running", 30, 100)
    assert (found.loss, found.validation_loss) == (1.7, 1.25)
    assert (found.tokens_per_second, found.last_checkpoint) == (80.0, "checkpoint-30")
    # Seventy steps of four seconds: what an earlier process took does not count.
    assert found.seconds_left == 280.0
    assert [(one.rank, one.host, one.heard_s) for one in found.ranks] == [
        (0, "host0", 3.0),
        (1, "host1", 11.0),
    ]


@pytest.mark.parametrize(
    ("written", "state", "error"),
    [
        (beats(29.0), "running", None),
        (beats(31.0), "silent", None),
        (beats(9e5, code=75, error="stopped after step 30"), "stopped", "stopped after step 30"),
        (beats(9e5, code=1, error="rank 1 on host1 is gone"), "failed", "rank 1 on host1 is gone"),
        ({}, "silent", None),
    ],
)
def test_the_state(written: Any, state: str, error: str | None, run: Path) -> None:
    write(run, "ranks.json", written)
    found = read_status(run, NOW)
    assert (found.state, found.last_error) == (state, error)


def test_a_finished_run_is_finished_whatever_its_heartbeat(run: Path) -> None:
    (run / "all_results.json").touch()
    assert read_status(run, NOW).state == "finished"
    assert read_status(run, NOW).ranks == ()


def test_a_run_that_has_just_begun(run: Path) -> None:
    for name in ("metrics.jsonl", "timings.jsonl", "ranks.json"):
        (run / name).unlink()
    for step in (10, 30):
        shutil.rmtree(run / f"checkpoint-{step}")
    found = read_status(run, NOW)
    expected = Status(str(run), "silent", 0, 100, None, None, None, None, None, None)
    assert found == expected
    assert "last checkpoint none" in str(found)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no run of peftune"):
        read_status(tmp_path, NOW)


def test_the_verb_prints_lines_or_json(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    lines = CliRunner().invoke(cli.app, ["status", str(run)]).stdout.splitlines()
    assert lines[0] == str(run)
    shown = {line[:16].strip(): line[16:] for line in lines[1:]}
    assert shown["step"] == "30 of 100 (30%)"
    assert shown["time left"] == "4 min 40 s"
    assert shown["speed"] == "80 tokens/s"
    assert shown["rank 1"] == "host1, step 31, heard of 11 s ago"
    printed = json.loads(CliRunner().invoke(cli.app, ["status", str(run), "--json"]).stdout)
    assert (printed["state"], printed["step"], len(printed["ranks"])) == ("running", 30, 2)
