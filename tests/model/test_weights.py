"""Weights that do not make a whole model: refused, never filled up with random numbers."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from peftune.errors import ModelError
from peftune.model.base import load_base
from peftune.model.head import Head
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES

CAUSAL = Head(OBJECTIVES["causal"])


@pytest.fixture
def broken(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "broken"))


def change_config(folder: Path, **keys: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def refusal(folder: Path, **keys: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_base(ModelSection(model_name_or_path=str(folder), **keys), CAUSAL, {}, "cpu")
    return str(caught.value)


def test_a_missing_tensor_is_named(broken: Path) -> None:
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    message = refusal(broken)
    assert "lacks 1 weights of LlamaForCausalLM, which would stay random numbers" in message
    assert message.endswith("the first is model.layers.1.mlp.up_proj.weight.")


def test_layers_that_were_never_saved_are_missed(broken: Path) -> None:
    change_config(broken, num_hidden_layers=3)
    assert "the first is model.layers.2." in refusal(broken)


def test_weights_of_another_shape_are_no_traceback(broken: Path) -> None:
    change_config(broken, intermediate_size=96)
    assert "cannot be loaded" in refusal(broken)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_a_kernel_that_is_not_installed_is_no_traceback(model_folder: Path) -> None:
    message = refusal(model_folder, attn_implementation="flash_attention_2")
    assert "cannot be loaded" in message
