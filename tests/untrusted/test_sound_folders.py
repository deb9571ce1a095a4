"""Folders as people have them: the checks let them pass, and say the same as before where they load."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from peftune.errors import ModelError
from peftune.model import location
from peftune.model.base import load_base, load_config, load_skeleton, load_tokenizer
from peftune.model.head import Head
from peftune.model.location import check_model_files, weight_files
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES
from tests.untrusted.guard import change_json

CAUSAL = Head(OBJECTIVES["causal"])
NAME, COMMIT = "somebody/model", "0123456789abcdef0123456789abcdef01234567"


def section_of(name: object) -> ModelSection:
    return ModelSection(model_name_or_path=str(name), dtype="float32")


def test_a_model_in_several_files(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="100KB")
    assert len(weight_files(section_of(base))) > 2
    check_model_files(section_of(base))
    loaded, _ = load_base(section_of(base), CAUSAL, {}, "cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision(dtype: torch.dtype, base: Path) -> None:
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(base)
    check_model_files(section_of(base))
    assert load_skeleton(section_of(base), CAUSAL).device.type == "meta"


def test_a_link_inside_the_folder(base: Path) -> None:
    (base / "model.safetensors").rename(base / "weights")
    (base / "model.safetensors").symlink_to("weights")
    check_model_files(section_of(base))


def test_a_link_to_the_folder(base: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    check_model_files(section_of(tmp_path / "link"))


def test_paths_of_the_author_are_passed_over(base: Path) -> None:
    """Many tokenizers of the Hub still name a file of the machine that they were made on."""
    old = "/home/author/.cache/685ac0ca8568ec593a48b61b0a3c272b"
    change_json(base / "tokenizer_config.json", special_tokens_map_file=old, tokenizer_file=None)
    assert load_tokenizer(section_of(base)).eos_token == "<eos>"


@pytest.fixture
def snapshot(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same model in a cache of the Hub: a folder of links to blobs."""
    repository = tmp_path / "hub" / "models--somebody--model"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for number, path in enumerate(sorted(base.iterdir())):
        shutil.move(path, repository / "blobs" / f"{number:040x}")
        (folder / path.name).symlink_to(f"../../blobs/{number:040x}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    location._snapshot.cache_clear()
    return folder


def test_a_snapshot_of_the_hub(snapshot: Path) -> None:
    assert load_tokenizer(section_of(NAME)).eos_token == "<eos>"
    assert load_config(section_of(NAME)).hidden_size == 64
    loaded, new = load_base(section_of(NAME), CAUSAL, {}, "cpu")
    assert (loaded.config.hidden_size, new) == (64, [])
    assert weight_files(section_of(NAME)) == [snapshot / "model.safetensors"]
    check_model_files(section_of(snapshot))


def test_a_snapshot_that_leaves_its_repository(snapshot: Path, outside: Path) -> None:
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(outside / "secret.json")
    with pytest.raises(ModelError, match=r"config\.json is a link that leaves its folder"):
        load_config(section_of(NAME))


def test_a_snapshot_that_reads_the_blobs_of_another(snapshot: Path, tmp_path: Path) -> None:
    other = tmp_path / "hub" / "models--secret--model" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(snapshot / "config.json", other / "1")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(os.path.relpath(other / "1", snapshot))
    with pytest.raises(ModelError, match=r"config\.json is a link that leaves its folder"):
        load_config(section_of(NAME))


@pytest.mark.parametrize("change", [{"num_labels": 10**9}, {"auto_map": {"AutoConfig": "a.B"}}])
def test_a_hostile_model_of_the_hub(change: dict[str, object], snapshot: Path) -> None:
    config = json.loads((snapshot / "config.json").read_text()) | {"model_type": "own"} | change
    (snapshot / "config.json").write_text(json.dumps(config))
    for load in (load_tokenizer, load_config):
        with pytest.raises(ModelError, match=r"far more than|brings its own Python code"):
            load(section_of(NAME))
