"""What a run's numbers depend on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peftune.checkpoint import identity
from peftune.checkpoint.identity import (
    differences,
    recipe_identity,
    require_same,
    start_identity,
    weights_digest,
)
from peftune.errors import CheckpointError
from peftune.model.section import ModelSection
from peftune.recipe import load_recipe, recipe_keys
from tests.conftest import write_recipe


def test_every_key_of_training_and_adapter_counts_or_is_left_out_on_purpose(
    recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    found = recipe_identity(load_recipe(write_recipe(tmp_path, recipe_tree)))
    left_out = identity.NO_NUMBER["train"]
    for key in recipe_keys():
        section, _, name = key.partition(".")
        if section == "train" and name:
            assert (key in found) != (name in left_out), key
    assert found["seed"] == 3 and found["adapter.r"] == 4
    assert not any(key.startswith(("output_dir", "resume", "export", "selftest")) for key in found)


def test_differences_are_shown_as_a_person_writes_them() -> None:
    saved = {"seed": 1, "data.labels": ["a"], "model.weights": "a" * 64, "gone": None}
    now = {"seed": 2, "data.labels": ["a", "b"], "model.weights": "b" * 64, "new": 0.5}
    assert differences(saved, now) == {
        "data.labels": "[a] → [a, b]",
        "gone": "null → not set",
        "model.weights": "aaaaaaaaaaaa… → bbbbbbbbbbbb…",
        "new": "not set → 0.5",
        "seed": "1 → 2",
    }
    assert differences(saved, saved) == {}


def test_what_is_not_accepted_is_refused_with_the_way_out() -> None:
    saved, now = {"seed": 1, "adapter.r": 4, "x": 0}, {"seed": 2, "adapter.r": 8, "x": 0}
    with pytest.raises(CheckpointError) as caught:
        require_same(saved, now, ["seed"], Path("run/checkpoint-3"))
    assert str(caught.value) == (
        "resume: run/checkpoint-3 is of a run with other values: adapter.r: 4 → 8. Go back to them, or "
        "accept them: resume.allow: [adapter.r, seed]."
    )
    both = require_same(saved, now, ["seed", "adapter.r"], Path("run/checkpoint-3"))
    assert both == [
        "adapter.r: 4 → 8, accepted by resume.allow",
        "seed: 1 → 2, accepted by resume.allow",
    ]


def test_weights_of_the_hub_are_those_that_are_loaded(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other files of a repository count for nothing, and are not fetched."""
    local = weights_digest(ModelSection(model_name_or_path=str(model_folder)))
    snapshot = Path(shutil.copytree(model_folder, tmp_path / "snapshot"))
    (snapshot / "consolidated.safetensors").write_bytes(b"other")
    asked: list[Any] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(identity, "snapshot_download", download)
    section = ModelSection(model_name_or_path="someone/model", revision="abc")
    assert weights_digest(section) == local
    assert asked == [("someone/model", "abc", ["model*.safetensors"])]


@pytest.mark.parametrize("start", [True, "pissa", "olora"])
def test_where_the_adapter_starts_counts_where_the_base_follows_from_it(
    start: Any, recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe_tree["adapter"]["init_lora_weights"] = start
    recipe = load_recipe(write_recipe(tmp_path, recipe_tree))
    one, other = (
        {"a": torch.zeros(2), "b": torch.ones(2)},
        {"a": torch.zeros(2), "b": torch.zeros(2)},
    )
    if start is True:
        assert start_identity(recipe, one) == {}
    else:
        assert start_identity(recipe, one) == start_identity(recipe, dict(reversed(one.items())))
        assert start_identity(recipe, one) != start_identity(recipe, other)
