"""One small run with checkpoints, and copies of it that look as if it had been killed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftune.compatibility import check_recipe
from peftune.engines.launch import read_launch
from peftune.pipeline import run
from peftune.recipe import load_recipe
from tests.conftest import summary_tree, write_recipe

Again = Callable[..., Path]


@pytest.fixture(scope="session")
def own_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny model that a test may change and put back."""
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("own") / "model"))


@pytest.fixture(scope="session")
def own_data(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny data that a test may change and put back."""
    return Path(shutil.copytree(data_folder, tmp_path_factory.mktemp("own") / "data"))


@pytest.fixture(scope="session")
def tree(own_model: Path, own_data: Path) -> dict[str, Any]:
    """Six steps, a checkpoint after every second, the best adapter at the end."""
    tree = summary_tree(own_model, own_data)
    more = {"save_steps": 2, "save_total_limit": 5, "eval_steps": 2, "load_best_model_at_end": True}
    return tree | {"train": tree["train"] | more, "export": {"merge": False, "verify": False}}


def train(folder: Path, tree: dict[str, Any], *overrides: str) -> Path:
    """Train in this process into `folder/run`, as `peftune train` does."""
    recipe = load_recipe(write_recipe(folder, tree), [f"output_dir={folder / 'run'}", *overrides])
    check_recipe(recipe, read_launch({}))
    run(recipe, read_launch({}))
    return folder / "run"


@pytest.fixture(scope="session")
def undisturbed(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    return train(tmp_path_factory.mktemp("undisturbed"), tree)


@pytest.fixture
def killed(undisturbed: Path, tmp_path: Path) -> Path:
    """The same after step 5: checkpoints 2 and 4, and a log that goes further."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint-6")
    for name in ("all_results.json", "eval_results.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    (folder / "latest").write_text("checkpoint-4\n")
    return folder


@pytest.fixture
def again(tmp_path: Path, tree: dict[str, Any]) -> Again:
    """Start the run in `tmp_path/run` again, by default with `resume: auto`."""

    def start(*overrides: str) -> Path:
        return train(tmp_path, tree, *(overrides or ("resume=auto",)))

    return start
