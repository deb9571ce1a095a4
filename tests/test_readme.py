"""What the README says is true: its commands run, its tables are those of the code."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from typer.testing import CliRunner

from peftune import cli
from peftune.compatibility import check_recipe
from peftune.data.section import DataSection
from peftune.engines.launch import Launch
from peftune.objectives import MODEL_CLASSES
from peftune.recipe import load_recipe
from peftune.selftest.checks import checks
from peftune.selftest.section import CheckName
from tests.conftest import REPOSITORY
from tests.engines.test_layouts import LAYOUTS
from tests.keys_table import (
    BEGIN,
    BEGIN_TASKS,
    END,
    END_TASKS,
    SCHEMA_FILE,
    keys_table,
    schema_text,
    tasks_table,
)
from tests.launching import environment, free_port

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
LAUNCHER_FILES = sorted((REPOSITORY / "accelerate_configs").glob("*.yaml"))
VERBS = (
    *("validate", "plan", "prepare", "preview", "selftest", "train", "evaluate", "merge", "matrix"),
    *("resolve", "schema", "env", "export", "reproduce", "launch", "status"),
)
PORT = "29500"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every line of every bash block, without comments."""
    lines = (line for block in blocks("bash") for line in block.splitlines())
    return [
        command for line in lines if (command := line.split(" #")[0].strip(" #")) and line[0] != "#"
    ]


def launches(node: str) -> list[str]:
    return [line for line in commands() if f"--main_process_ip {node} " in line]


NEEDS_TWO_GPU_NODES = launches("10.0.0.1")
TWO_CPU_NODES = launches("127.0.0.1")
MAKE = [line for line in commands() if line.startswith("make ")]
LATER_VERBS = "peftune (evaluate|merge|export|reproduce|status) "
AFTER_A_RUN = [line for line in commands() if re.match(LATER_VERBS, line)]
LAUNCHED_SELFTEST = [line for line in commands() if "--selftest" in line]
TRAINING = [
    line
    for line in commands()
    if re.match("accelerate launch |peftune train ", line)
    and line not in NEEDS_TWO_GPU_NODES + TWO_CPU_NODES + LAUNCHED_SELFTEST
]
LIGHT = [
    line
    for line in commands()
    if line
    not in NEEDS_TWO_GPU_NODES + TWO_CPU_NODES + MAKE + AFTER_A_RUN + TRAINING + LAUNCHED_SELFTEST
]


def make_checkout(folder: Path) -> Path:
    """A place with the names the README uses, so that nothing is written into the repository."""
    folder.mkdir()
    for name in ("peftune", "accelerate_configs"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "recipes").mkdir()
    return folder


def shell(command: str, folder: Path) -> str:
    """What `command` prints, with this environment's programs first on the path."""
    done = start(command, folder)
    output, _ = done.communicate(timeout=600)
    assert done.returncode == 0, f"{command}\n{output[-4000:]}"
    return output


def start(command: str, folder: Path) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env={**environment(), "PATH": path, "COLUMNS": "200", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_here(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a `peftune` command prints, in this process, which has loaded everything already; the help of
    each verb, below, starts the program itself. What a shell has to understand goes to a shell."""
    if ">" in command or not command.startswith("peftune "):
        return shell(command, folder)
    monkeypatch.chdir(folder)
    terminal = {"COLUMNS": "200", "NO_COLOR": "1"}
    done = CliRunner().invoke(cli.app, shlex.split(command)[1:], env=terminal)
    assert done.exit_code == 0, f"{command}\n{done.output[-4000:]}"
    return done.output


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The shipped recipes, as a person has them after cloning."""
    folder = make_checkout(tmp_path / "checkout")
    for recipe in RECIPES:
        (folder / "recipes" / recipe.name).write_bytes(recipe.read_bytes())
    for part in MODEL_CLASSES:
        (folder / "recipes" / part).symlink_to(REPOSITORY / "recipes" / part)
    return folder


@pytest.fixture
def small_checkout(tmp_path: Path, recipe_tree: dict[str, Any]) -> Path:
    """recipes/summarize.yaml with the smallest model and three steps: the words, not the work."""
    return small_recipe(make_checkout(tmp_path / "checkout"), recipe_tree)


def small_recipe(folder: Path, tree: dict[str, Any]) -> Path:
    small = {**tree, "output_dir": "outputs/summarize", "overwrite_output_dir": True}
    small["train"] = {**tree["train"], "max_steps": 3}
    (folder / "recipes" / "summarize.yaml").write_text(yaml.safe_dump(small))
    return folder


@pytest.fixture(scope="module")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path
) -> Path:
    """A small checkout after `peftune train recipes/summarize.yaml`."""
    folder = make_checkout(tmp_path_factory.mktemp("finished") / "checkout")
    data = {"path": str(data_folder), "columns": {"completion": "summary"}, "max_length": 128}
    tree = {
        "task": "summarize",
        "model": {"model_name_or_path": str(model_folder), "dtype": "float32"},
        "data": {**data, "prompt_template": "{dialogue}\nSummary:"},
        "adapter": {"method": "lora", "r": 4},
        "train": {"learning_rate": 1.0e-2, "global_batch_size": 8, "save_steps": 2},
        "evaluation": {"max_new_tokens": 4},
    }
    shell("peftune train recipes/summarize.yaml", small_recipe(folder, tree))
    return folder


def test_the_first_screen_has_the_three_commands() -> None:
    assert commands()[:3] == [
        "make quickstart",
        "make test",
        "accelerate launch peftune/run.py recipes/summarize.yaml",
    ]
    assert commands()[:2] == MAKE
    assert README.index("accelerate launch") < README.index("\n## ")


@pytest.mark.parametrize(
    ("command", "work"),
    [
        ("make quickstart", ["accelerate launch peftune/run.py recipes/summarize.yaml"]),
        (
            "make test",
            [
                "ruff check .",
                "ruff format --check .",
                "mypy",
                "pytest -n 3 --dist loadfile --no-loadscope-reorder",
            ],
        ),
    ],
)
def test_make_does_its_own_set_up(command: str, work: list[str], tmp_path: Path) -> None:
    """`make test` cannot run itself, so make says what it would do on a machine without anything."""
    assert command in MAKE
    planned = shell(f"{command} --dry-run VENV={tmp_path / 'new'}", REPOSITORY)
    assert planned.index("-m venv") < planned.index(work[0])
    assert all(re.search(rf"^{re.escape(line)}$", planned, re.MULTILINE) for line in work)


@pytest.mark.parametrize("command", LIGHT)
def test_light_commands_run_on_the_shipped_recipe(
    command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = said_here(command, checkout, monkeypatch)
    assert output or ">" in command


@pytest.mark.parametrize("command", TRAINING)
def test_training_commands_run(command: str, small_checkout: Path) -> None:
    shell(command, small_checkout)
    run = small_checkout / "outputs" / "summarize"
    assert (run / "merged" / "model.safetensors").is_file()
    processes = 2 if "cpu_ddp" in command else 1
    assert json.loads((run / "environment.json").read_text())["world_size"] == processes


@pytest.mark.thorough
def test_the_self_test_under_a_launcher(small_checkout: Path) -> None:
    """Every check that the README lists for a decoder passes on two ranks; nothing is written."""
    [command] = LAUNCHED_SELFTEST
    output = shell(command, small_checkout)
    assert [*re.findall(r"│ (\w+) +│.*│ passed │", output)] == [*get_args(CheckName)]
    assert not (small_checkout / "outputs").exists()


def test_the_table_of_checks_is_that_of_the_code() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (×?) ?\| ", README, re.MULTILINE)
    short = {check.name for check in checks(full=False)}
    assert listed == [(name, "×" if name in short else "") for name in get_args(CheckName)]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=pytest.mark.thorough if "--quantize" in line else ())
        for line in AFTER_A_RUN
    ],
)
def test_commands_on_a_finished_run(
    command: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_here(command, finished_run, monkeypatch)


def test_two_cpu_nodes(small_checkout: Path) -> None:
    assert [line.split()[7] for line in TWO_CPU_NODES] == ["0", "1"]
    port = str(free_port())
    nodes = [start(line.replace(PORT, port), small_checkout) for line in TWO_CPU_NODES]
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)[-4000:]
    run = small_checkout / "outputs" / "summarize"
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2
    assert (run / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("command", NEEDS_TWO_GPU_NODES)
def test_gpu_commands_name_what_exists(command: str) -> None:
    """They need two machines with GPUs: here the flags, the files and the recipe are checked."""
    arguments = launch_command_parser().parse_args(shlex.split(command)[2:])
    config = load_config_from_file(str(REPOSITORY / arguments.config_file))
    assert (REPOSITORY / arguments.training_script).is_file()
    assert config.num_machines == arguments.num_machines
    path, *overrides = arguments.training_script_args
    recipe = load_recipe(REPOSITORY / path, overrides)
    check_recipe(recipe, Launch("ddp", config.num_processes, 0, False, True, False))


def test_two_gpu_nodes_have_a_rank_each() -> None:
    ranks = [re.findall(r"--machine_rank (\d)", line) for line in NEEDS_TWO_GPU_NODES]
    assert ranks == [["0"], ["1"]]


@pytest.mark.parametrize("program", blocks("python"))
def test_python_blocks_run(program: str, finished_run: Path) -> None:
    (finished_run / "program.py").write_text(program)
    assert "Can I have a map?" in shell(f"{sys.executable} program.py", finished_run)


def test_every_file_of_a_run_is_explained(finished_run: Path) -> None:
    (layout,) = (block for block in blocks("text") if "outputs/" in block)
    for entry in (finished_run / "outputs" / "summarize").iterdir():
        name = re.sub(r"checkpoint-\d+", "checkpoint-<step>", entry.name)
        assert name in layout or name == "tokenizer_config.json", name


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_the_example_of_the_readme(verb: str, tmp_path: Path) -> None:
    (example,) = {line for line in commands() if line.startswith(f"peftune {verb}")} & set(
        blocks_with("peftune schema")
    )
    printed = " ".join(shell(f"peftune {verb} --help", tmp_path).split())
    assert f"Example: {example} ╭" in printed


def blocks_with(command: str) -> list[str]:
    (block,) = (block for block in blocks("bash") if command in block)
    return [line.split(" #")[0].strip() for line in block.splitlines()]


def test_the_readme_has_every_verb(tmp_path: Path) -> None:
    listed = re.findall(r"^│ (\w+) ", shell("peftune --help", tmp_path), re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize("program", ["peftune train", "python peftune/run.py"])
def test_a_bad_recipe_exits_with_2(program: str, checkout: Path) -> None:
    process = start(f"{program} recipes/none.yaml", checkout)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode, output) == (2, "error: recipes/none.yaml: no such recipe file.\n")


def test_the_launcher_reports_1(checkout: Path) -> None:
    process = start("accelerate launch peftune/run.py recipes/none.yaml", checkout)
    assert "error: recipes/none.yaml: no such recipe file." in process.communicate(timeout=600)[0]
    assert process.returncode == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, [f"output_dir={tmp_path}"])
    check_recipe(recipe, Launch("ddp", 1, 0, True, False, False))
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == f"# yaml-language-server: $schema={SCHEMA_FILE.name}"


@pytest.mark.parametrize("path", LAUNCHER_FILES, ids=lambda path: path.name)
def test_launcher_files_load_and_are_listed(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines
    comment = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    about = comment.split(" Give ")[0]
    launched = path.stem in ("cpu", *LAYOUTS)
    assert (
        f"| `{path.name}` | {about} | {'by the tests' if launched else 'loaded only'} |" in README
    )


def test_the_launcher_table_has_no_other_file() -> None:
    assert set(re.findall(r"^\| `(\w+\.yaml)` \|", README, re.MULTILINE)) == {
        path.name for path in LAUNCHER_FILES
    }


def test_the_table_of_keys_is_current() -> None:
    """After a change of a section run `python -m tests.keys_table`."""
    assert README.partition(BEGIN)[2].partition(END)[0] == keys_table()


def test_the_table_of_tasks_is_current() -> None:
    """After a change of a task run `python -m tests.keys_table`."""
    assert README.partition(BEGIN_TASKS)[2].partition(END_TASKS)[0] == tasks_table()


def test_the_schema_file_is_current(tmp_path: Path) -> None:
    """After a change of a section run `python -m tests.keys_table`."""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()
    assert shell("peftune schema", tmp_path) == schema_text()


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=]", requirement)[0] for requirement in project["dependencies"]]
    table = README.partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([\w-]+) \| \w", table, re.MULTILINE)[1:] == sorted(names)


def test_the_pre_commit_file_is_valid() -> None:
    shell("pre-commit validate-config .pre-commit-config.yaml", REPOSITORY)


def test_the_readme_has_every_gate() -> None:
    table = README.partition("| Gate (`data.accept`)")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    gates, _ = get_args(DataSection.model_fields["accept"].annotation)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(get_args(gates))
