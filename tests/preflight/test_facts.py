"""What is found out about this machine."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from peftune.engines.launch import read_launch
from peftune.errors import LaunchError
from peftune.preflight import memory
from peftune.preflight.facts import facts_of
from peftune.preflight.perform import preflight
from peftune.preflight.weights import bytes_in_memory, weights_of
from peftune.recipe import Recipe

PARAMETERS = 384 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
"""Of the tiny model: tied embeddings, two layers, one last norm."""


@pytest.fixture
def own_model(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(recipe_tree["model"]["model_name_or_path"], folder)
    recipe_tree["model"]["model_name_or_path"] = str(folder)
    return folder


def facts(tree: dict[str, Any]) -> Any:
    return facts_of(Recipe.model_validate(tree), read_launch({}))


def test_the_weights_are_counted_by_their_headers(recipe_tree: dict[str, Any]) -> None:
    found = weights_of(Recipe.model_validate(recipe_tree))
    assert found is not None
    assert (found.files, found.parameters) == (1, PARAMETERS)


@pytest.mark.parametrize(
    ("more", "bytes_each"),
    [
        ({}, 4.0),
        ({"model": {"dtype": "bfloat16"}}, 2.0),
        ({"quantization": {"method": "bnb-int8"}}, 1.0),
        ({"quantization": {"method": "bnb-nf4"}}, 0.5),
    ],
)
def test_memory_is_what_the_weights_take_in_their_format(
    more: dict[str, Any], bytes_each: float, recipe_tree: dict[str, Any]
) -> None:
    model = recipe_tree["model"] | more.get("model", {})
    recipe = Recipe.model_validate(recipe_tree | more | {"model": model})
    assert bytes_in_memory(recipe, PARAMETERS) == PARAMETERS * bytes_each


def test_missing_weights(own_model: Path, recipe_tree: dict[str, Any]) -> None:
    (own_model / "model.safetensors").unlink()
    assert facts(recipe_tree).weights_problem == (
        f"{own_model} holds no weights (*.safetensors); copy them there."
    )


def test_a_download_that_was_cut_off(own_model: Path, recipe_tree: dict[str, Any]) -> None:
    file = own_model / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert facts(recipe_tree).weights_problem == f"{file} has not all of its bytes; copy it again."
    file.write_bytes(whole[:100])
    assert "is cut off or no safetensors file" in facts(recipe_tree).weights_problem


def test_other_weights_of_the_same_size_in_names_or_shapes_are_noticed(
    own_model: Path, recipe_tree: dict[str, Any]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    before = facts(recipe_tree).weights
    tensors = load_file(own_model / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.shape == torch.Size([64, 128]))
    save_file(
        tensors | {name: tensors[name].reshape(128, 64).contiguous()},
        own_model / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert facts(recipe_tree).weights != before


def test_the_recipe_is_compared_key_by_key(recipe_tree: dict[str, Any]) -> None:
    found = facts(recipe_tree).recipe
    assert (found["seed"], found["train.max_steps"], found["adapter.r"]) == ("3", "6", "4")


def test_the_merged_model_needs_room_on_rank_0_alone(recipe_tree: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(recipe_tree)
    needed = [
        facts_of(
            recipe, read_launch({"WORLD_SIZE": "2", "RANK": rank, "ACCELERATE_USE_CPU": "true"})
        )
        .disks[0]
        .needed
        for rank in "01"
    ]
    assert needed[0] - needed[1] == 4 * PARAMETERS


def test_memory_of_the_machine_and_of_the_groups_around_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "own").write_text("0::/job/step\n")
    step, job = tmp_path / "groups" / "job" / "step", tmp_path / "groups" / "job"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    (job / "memory.max").write_text("6000000\n")
    (job / "memory.current").write_text("4000000\n")
    (job / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    for name, path in {"MEMINFO": "meminfo", "GROUPS": "groups", "OWN_GROUP": "own"}.items():
        monkeypatch.setattr(memory, name, tmp_path / path)
    assert memory.free_memory() == 2_500_000
    (job / "memory.max").write_text("max\n")
    assert memory.free_memory() == 8_192_000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.free_memory() is None


def test_one_process_is_judged_alone(
    recipe_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate(recipe_tree)
    assert preflight(recipe, read_launch({})) is None
    monkeypatch.setattr("peftune.preflight.facts.free_memory", lambda: 1000)
    with pytest.raises(
        LaunchError, match=r"preflight, memory: host \S+ \(rank 0\) has 0\.00 MB of"
    ):
        preflight(recipe, read_launch({}))
