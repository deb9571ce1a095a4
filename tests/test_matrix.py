"""The matrix: no claim without a test, a way out of each refusal, shipped recipes in known cells."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftune.combination import check_combination, check_machine
from peftune.compatibility import check_recipe
from peftune.engines.launch import Launch
from peftune.errors import RecipeError
from peftune.matrix import MATRIX, SETTINGS, STATES, Grid, Rule, answer, overview, read_cell
from peftune.recipe import load_recipe
from tests.conftest import REPOSITORY, write_recipe
from tests.keys_table import BEGIN_MATRIX, END_MATRIX
from tests.launching import environment
from tests.recipes.recipe_table import RECIPES
from tests.recipes.test_library import launch_of

GRIDS = pytest.mark.parametrize("grid", [MATRIX, SETTINGS], ids=["matrix", "settings"])
EMBEDDED = sorted((REPOSITORY / "recipes").glob("*.yaml"))
CPU, GPU = Launch("ddp", 1, 0, True, False, False), Launch("ddp", 1, 0, False, True, False)


def states(grid: Grid) -> Iterator[tuple[Any, Rule]]:
    return ((cell, grid.rule(cell)) for cell in grid.cells())


def test_every_green_cell_is_a_test_and_every_test_a_green_cell() -> None:
    claimed = {
        node
        for grid in (MATRIX, SETTINGS)
        for cell, rule in states(grid)
        if rule.state == "green"
        for node in grid.proof(cell)
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        *("-m", "thorough or not thorough"),
        "tests/contract/test_cells.py",
    ]
    listed = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    )
    found = {line for line in listed.stdout.splitlines() if "::" in line}
    assert claimed == found


@GRIDS
def test_every_cell_has_one_answer_and_the_counts_add_up(grid: Grid) -> None:
    counts = grid.counts()
    assert counts.total() == sum(1 for _ in grid.cells())
    assert all(counts[state] for state in STATES)
    used = {id(rule) for _, rule in states(grid)}
    assert [rule for rule in grid.rules if id(rule) not in used] == []


@GRIDS
def test_every_refusal_says_why_and_names_a_green_cell(grid: Grid) -> None:
    for cell, rule in states(grid):
        if rule.state == "refused":
            assert rule.why and rule.names in grid.axes
            nearest = grid.nearest_green(cell)
            assert grid.rule(nearest).state == "green"
            assert nearest != cell
        elif rule.state == "unproven":
            assert rule.why in ("one GPU", "two GPUs")


def test_nothing_is_claimed_on_a_gpu() -> None:
    for cell, rule in states(MATRIX):
        if cell["device"] == "gpu":
            assert rule.state != "green"


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        (
            "engine=zero2,adapter=dora",
            [
                "green, proven by",
                "tests/contract/test_cells.py::test_trains[zero2-none-dora-decoder]",
            ],
        ),
        (
            "quantization=bnb-int8,engine=fsdp2",
            [
                "refused: bnb-int8 cannot be trained with FSDP2, which takes 8-bit weights apart from "
                "their scales",
                "nearest green cell: engine=zero3",
            ],
        ),
        ("device=gpu,engine=ddp", ["unproven: a proof needs two GPUs"]),
        (
            "setting=flash-attention",
            ["refused: flash-attention needs a GPU", "nearest green cell: setting=plain"],
        ),
    ],
)
def test_one_cell_is_answered(query: str, lines: list[str]) -> None:
    assert answer(read_cell(query)).splitlines()[1:] == lines


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("engin=zero3", "--cell: engin is not an axis of the matrix. Did you mean engine?"),
        ("engine=zero4", "--cell: engine=zero4 is not one of single, ddp, "),
        ("zero3", "--cell: 'zero3' is not of the form axis=value,axis=value."),
    ],
)
def test_a_cell_that_is_none_is_refused(query: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        answer(read_cell(query))
    assert str(error.value).startswith(message)


def test_the_table_of_the_readme_is_current() -> None:
    """After a change of the matrix run `python -m tests.keys_table`."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN_MATRIX)[2].partition(END_MATRIX)[0] == overview()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_hardware_of_a_shipped_recipe_is_named(path: Path) -> None:
    """On the GPUs of the recipe's own launcher file: unproven, and the warning says what is missing."""
    launch, _ = launch_of(path)
    unproven = check_combination(load_recipe(path), launch, gpus=8)
    needed = "one GPU" if launch.world_size == 1 else "two GPUs"
    assert unproven
    assert all(line.endswith(f"(needs {needed})") for line in unproven)


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem)
def test_the_embedded_recipes_are_green(path: Path) -> None:
    assert check_combination(load_recipe(path), CPU, gpus=0) == []
    assert (
        check_combination(load_recipe(path), Launch("ddp", 2, 0, True, False, False), gpus=0) == []
    )


def test_an_unproven_cell_is_one_line_on_the_first_rank(
    recipe_tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, recipe_tree))
    check_machine(recipe, GPU, 1)
    assert capsys.readouterr().err == (
        "warning: not proven by a test: gpu, single, none, lora, train (needs one GPU); gpu, single, "
        "none, lora, merge (needs one GPU).\n"
    )
    check_machine(recipe, Launch("ddp", 2, 1, False, True, False), 2)
    check_machine(recipe, CPU, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "launch", "message"),
    [
        (
            {"adapter": {"method": "dora"}, "quantization": {"method": "bnb-nf4"}},
            Launch("zero3", 2, 0, True, False, False),
            "adapter.method: dora makes quantized weights anew in each pass on the CPU, and ZeRO-3 "
            "loses track of them; the nearest green cell has accelerate_configs/cpu_fsdp2.yaml.",
        ),
        (
            {},
            Launch("fsdp2", 2, 0, True, False, True),
            "accelerate config: fsdp2 with offload moves weights between host and GPU, and CPU ranks "
            "have none; the nearest green cell has accelerate_configs/cpu_fsdp2.yaml.",
        ),
        (
            {"train": {"optim": "paged_adamw_8bit"}},
            CPU,
            "train.optim: paged_adamw_8bit needs a GPU; the nearest green cell has train.optim: "
            "adamw_torch.",
        ),
        (
            {"train": {"optim": "adamw_bnb_8bit"}},
            Launch("zero2", 2, 0, False, True, False),
            "train.optim: adamw_bnb_8bit keeps its state in a form that this engine cannot shard; the "
            "nearest green cell has train.optim: adamw_torch (proven on CPU ranks only).",
        ),
        (
            {"model": {"attn_implementation": "flash_attention_2"}},
            CPU,
            "model.attn_implementation: flash_attention_2 needs a GPU; the nearest green cell has "
            "model.attn_implementation: sdpa.",
        ),
        (
            {"adapter": {"init_lora_weights": "olora"}, "quantization": {"method": "bnb-int8"}},
            GPU,
            "adapter.init_lora_weights: olora changes the base weights, which a quantized base cannot "
            "take; the nearest green cell has adapter.init_lora_weights: true (proven on CPU ranks "
            "only).",
        ),
    ],
)
def test_a_run_in_a_refused_cell_ends_before_anything_is_loaded(
    changes: dict[str, Any],
    launch: Launch,
    message: str,
    recipe_tree: dict[str, Any],
    tmp_path: Path,
) -> None:
    tree = {**recipe_tree, "quantization": None}
    for section, keys in changes.items():
        tree[section] = {**(tree.get(section) or {}), **keys}
    if tree["adapter"]["method"] != "lora":
        tree["adapter"] = changes["adapter"]
    with pytest.raises(RecipeError) as error:
        check_recipe(load_recipe(write_recipe(tmp_path, tree)), launch)
    assert str(error.value) == message
