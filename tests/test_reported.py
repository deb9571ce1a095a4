"""A second `peftune prepare`: from disk where nothing has changed, and only there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from peftune.preparation import report_data
from peftune.recipe import load_recipe
from tests.conftest import sentence_pairs, summary_tree, write_jsonl


@pytest.fixture
def recipe(model_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """A recipe with data and a model of its own, and an empty cache."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    base = summary_tree(model_folder, data_folder)
    shutil.copytree(model_folder, tmp_path / "model")
    train = write_jsonl(tmp_path / "train.jsonl", sentence_pairs(12))
    section = {key: value for key, value in base["data"].items() if key != "path"}
    base.pop("evaluation")
    tree = {
        **base,
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(tmp_path / "model")},
        "data": {**section, "train": str(train)},
        "train": {**base["train"], "eval_steps": None},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def prepared_again(recipe: Path) -> tuple[dict[str, Any], bool]:
    """What is printed, and whether the libraries that take seconds were loaded for it."""
    code = (
        "import json, sys; from peftune.preparation import report_data; "
        "from peftune.recipe import load_recipe; "
        f"report = report_data(load_recipe({str(recipe)!r})); "
        "print(json.dumps([report, 'transformers' in sys.modules or 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    report, loaded = json.loads(done.stdout.splitlines()[-1])
    return report, loaded


def test_nothing_changed(recipe: Path) -> None:
    first = report_data(load_recipe(recipe))
    assert prepared_again(recipe) == (first, False)


def test_more_rows(recipe: Path) -> None:
    report_data(load_recipe(recipe))
    write_jsonl(recipe.parent / "train.jsonl", sentence_pairs(13))
    report, loaded = prepared_again(recipe)
    assert loaded
    assert report["train"]["rows"] == 13


@pytest.mark.thorough
def test_another_tokenizer(recipe: Path) -> None:
    report_data(load_recipe(recipe))
    file = recipe.parent / "model" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 100}))
    assert prepared_again(recipe)[1]


@pytest.mark.thorough
def test_another_key(recipe: Path) -> None:
    report_data(load_recipe(recipe))
    tree = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**tree, "seed": 7}))
    assert prepared_again(recipe)[1]


def test_tokens_are_gone(recipe: Path) -> None:
    first = report_data(load_recipe(recipe))
    for manifest in (recipe.parent / "cache").glob("*/manifest.json"):
        manifest.unlink()
    assert prepared_again(recipe) == (first, True)
