"""The `peftune` command: exit codes, errors of one line each, and what the verbs print."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peftune import cli
from peftune.cli import report_errors
from peftune.engines.launch import Launch
from peftune.errors import (
    DataError,
    LaunchError,
    ModelError,
    PeftuneError,
    RecipeError,
    TrainingError,
)
from peftune.recipe import Recipe, recipe_keys
from tests.conftest import REPOSITORY, sentence_pairs, write_recipe

LAUNCHER_KEYS = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES", "FSDP_VERSION")
GREEN = re.compile(r"\x1b\[1;(?:7;)?32m(.*?)\x1b\[0m", re.DOTALL)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key in LAUNCHER_KEYS or key[:11] == "ACCELERATE_"]:
        monkeypatch.delenv(key)


@pytest.fixture
def recipe(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    """40 rows, 2 on a device at a time, 8 in a step, 6 steps."""
    return write_recipe(tmp_path, recipe_tree)


def invoke(*arguments: object) -> Any:
    """The command in this process, on a wide terminal that shows colours."""
    terminal = {"COLUMNS": "400", "TERM": "xterm-256color", "FORCE_COLOR": "1", "NO_COLOR": None}
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env=terminal)


def failing(error: Exception) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (RecipeError, 2),
        (DataError, 2),
        (ModelError, 2),
        (LaunchError, 2),
        (TrainingError, 1),
        (PeftuneError, 1),
    ],
)
def test_the_exit_code_tells_whose_fault_it_was(
    kind: type[PeftuneError], exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_errors(False, failing(kind("seed: -1: too small."))) == exit_code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: seed: -1: too small.\n")


def test_success_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    given: list[object] = []
    assert report_errors(False, lambda *arguments: given.extend(arguments), "a", 2) == 0
    assert given == ["a", 2]
    assert capsys.readouterr() == ("", "")


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_errors(False, failing(RecipeError("first.\nsecond.")))
    assert capsys.readouterr().err == "error: first.\nerror: second.\n"


def test_one_rank_speaks_for_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight ranks with one mistake print it once, and all of them fail."""
    codes = []
    for rank in range(8):
        monkeypatch.setenv("RANK", str(rank))
        codes.append(report_errors(False, failing(TrainingError("loss is nan."))))
    assert codes == [1] * 8
    assert capsys.readouterr().err == "error: loss is nan.\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no rows"):
        report_errors(True, failing(DataError("no rows.")))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("debug", [True, False])
def test_a_bug_of_peftune_is_not_called_a_mistake_of_the_user(debug: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        report_errors(debug, failing(ZeroDivisionError()))


def test_validate_accepts(recipe: Path) -> None:
    result = invoke("validate", recipe)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{recipe}: valid.\n", "")


def test_validate_lists_all_problems_at_once(recipe: Path) -> None:
    result = invoke("validate", recipe, "train.max_steps=many", "adapter.r=0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sorted(result.stderr.splitlines()) == [
        f"error: {recipe}: adapter.r: 0: input should be greater than or equal to 1.",
        f"error: {recipe}: train.max_steps: 'many': input should be a valid integer.",
    ]


def test_validate_knows_the_launcher(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    result = invoke("validate", recipe)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: train.global_batch_size: 8 is not a multiple of 6 ")


def test_validate_writes_nothing(recipe: Path) -> None:
    invoke("validate", recipe)
    assert list(recipe.parent.iterdir()) == [recipe]


@pytest.mark.parametrize("verb", ["validate", "plan", "preview", "train"])
def test_debug_is_an_option_of_the_verbs(verb: str, recipe: Path) -> None:
    result = invoke(verb, recipe, "seed", "--debug")
    assert isinstance(result.exception, RecipeError)
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("evaluate", "{}/recipe.yaml: no such recipe file."),
        ("merge", "{}: neither a run (recipe.yaml) nor an adapter (adapter_config.json)."),
    ],
)
def test_a_folder_without_a_run(verb: str, message: str, tmp_path: Path) -> None:
    result = invoke(verb, tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr == f"error: {message.format(tmp_path / 'none')}\n"


def test_train_hands_recipe_and_launch_to_the_pipeline(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a launcher: one process."""
    ran: list[tuple[Recipe, Launch]] = []
    monkeypatch.setattr("peftune.pipeline.run", lambda *arguments: ran.append(arguments))
    assert invoke("train", recipe, "seed=9", "train.learning_rate=2e-4").exit_code == 0
    [(given, launch)] = ran
    assert (given.seed, given.train.learning_rate) == (9, 2e-4)
    assert (launch.engine, launch.world_size, launch.rank) == ("ddp", 1, 0)


def plan_of(*arguments: object) -> dict[str, int]:
    """The printed plan: names of words, then one number a line."""
    result = invoke("plan", *arguments)
    assert result.exit_code == 0, result.stderr
    lines = [re.fullmatch(r"([a-z ]+?) +([\d,]+)", line) for line in result.stdout.splitlines()]
    return {line[1]: int(line[2].replace(",", "")) for line in lines if line}


def test_plan_of_one_device(recipe: Path) -> None:
    assert plan_of(recipe) == {
        "rows": 40,
        "world size": 1,
        "per device batch size": 2,
        "global batch size": 8,
        "micro batches per step": 4,
        "steps per epoch": 5,
        "total steps": 6,
        "warmup steps": 0,
        "trainable parameters": 8192,
        "frozen parameters": 98_624,
    }


def test_plan_of_two_devices_keeps_the_steps(recipe: Path) -> None:
    one, two = plan_of(recipe), plan_of(recipe, "--gpus", 2)
    changed = {name: number for name, number in two.items() if number != one[name]}
    assert changed == {"world size": 2, "micro batches per step": 2}


def test_plan_counts_what_the_overrides_leave(recipe: Path) -> None:
    """19 rows make 3 steps of at most 8; 500 epochs of them 1,500, a tenth of that is warmup."""
    overrides = ("train.max_steps=null", "train.num_train_epochs=500", "train.warmup_ratio=0.1")
    plan = plan_of(recipe, "data.max_train_samples=19", *overrides)
    numbers = [plan[name] for name in ("rows", "steps per epoch", "total steps", "warmup steps")]
    assert numbers == [19, 3, 1500, 150]


def test_plan_counts_rows_after_long_ones_are_dropped(recipe: Path) -> None:
    kept = plan_of(recipe, "data.overlong=drop", "data.max_length=40")["rows"]
    assert 0 < kept < 40


def test_plan_refuses_devices_that_cannot_share(recipe: Path) -> None:
    result = invoke("plan", recipe, "--gpus", 3)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: train.global_batch_size: 8 is not a multiple of 6 (2 rows per device × 3 devices). "
        "Use 6 or 12."
    ]


def test_preview_colours_what_is_learnt(recipe: Path) -> None:
    """The completion and its end, and not a letter of the prompt."""
    result = invoke("preview", recipe, "--rows", 2)
    shown = re.split(r"row \d+: ", result.stdout)[1:]
    assert len(shown) == 2
    for text, row in zip(shown, sentence_pairs(2), strict=True):
        assert "".join(GREEN.findall(text)) == f" {row['summary']}<eos>"
        assert f"{row['dialogue']}\nSummary:" in GREEN.sub("", text)


def test_preview_counts_the_learnt_tokens(recipe: Path) -> None:
    shown = invoke("preview", recipe, "--rows", 1).stdout
    found = re.search(r"row 1: (\d+) tokens, (\d+) learnt \(green\)", shown)
    assert found is not None
    assert int(found[2]) == len(GREEN.findall(shown)) < int(found[1])


def test_preview_shows_three_rows_unasked(recipe: Path) -> None:
    assert invoke("preview", recipe).stdout.count(" learnt (green)") == 3


def test_schema_is_json_that_knows_every_key() -> None:
    schema = json.loads(invoke("schema").stdout)
    required = {"task", "output_dir", "model", "data", "adapter", "train"}
    assert set(schema["required"]) == required
    assert schema["additionalProperties"] is False
    known = {key for part in schema["$defs"].values() for key in part["properties"]}
    assert {key.split(".")[-1] for key in recipe_keys()} <= known | set(schema["properties"])


def test_env_names_versions_and_devices() -> None:
    result = invoke("env")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert ["torch", version("torch")] in [line[:2] for line in lines]
    assert lines[-1][0] == "CPU,"


@pytest.mark.parametrize("arguments", [[], ["validate"], ["tune"], ["plan", "--rows", "1"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stdout + result.stderr


@pytest.mark.parametrize("debug", [True, False])
def test_the_script_takes_debug_anywhere(debug: bool, tmp_path: Path) -> None:
    script = [sys.executable, str(REPOSITORY / "peftune" / "run.py")]
    flag = ["--debug"] if debug else []
    command = [*script, *flag, str(tmp_path / "none.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ("Traceback" in done.stderr) is debug
    assert done.returncode == (1 if debug else 2)
    assert f"{tmp_path}/none.yaml: no such recipe file." in done.stderr


def test_the_script_without_a_recipe_shows_its_usage(tmp_path: Path) -> None:
    script = [sys.executable, str(REPOSITORY / "peftune" / "run.py")]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "accelerate launch [--config_file FILE.yaml] peftune/run.py [--selftest] RECIPE "
        "[section.key=value …]"
    ]
