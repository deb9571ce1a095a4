import json
import math

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from peftune.adapters import attach
from peftune.adapters.dora import DoraSection
from peftune.adapters.ia3 import Ia3Section
from peftune.adapters.lora import LoraSection
from peftune.errors import PeftuneError, TrainingError
from peftune.export.adapter import save_adapter, saved_name
from tests.adapters.tiny_llama import load, logits, trained_tensors


@pytest.mark.parametrize(
    "section",
    [
        LoraSection(method="lora", modules_to_save=("lm_head", "mlp"), target_modules=("q_proj",)),
        DoraSection(method="dora"),
        Ia3Section(method="ia3"),
    ],
    ids=lambda section: section.method,
)
def test_names_are_those_peft_itself_would_write(section, llama):
    adapted = attach(section, load(llama))
    ours = {saved_name(name) for name in trained_tensors(adapted)}
    assert ours == set(get_peft_model_state_dict(adapted, save_embedding_layers=False))


def test_a_folder_holds_two_files_and_no_path_of_this_machine(adapted, adapter_folder, llama):
    files = sorted(path.name for path in adapter_folder.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    for path in adapter_folder.iterdir():
        assert str(llama).encode() not in path.read_bytes()
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny/llama"
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    assert adapted.peft_config["default"].inference_mode is False
    reloaded = PeftModel.from_pretrained(load(llama), adapter_folder)
    torch.testing.assert_close(logits(reloaded), logits(adapted), rtol=1e-6, atol=1e-6)


def test_saving_again_replaces_both_files_and_leaves_others(adapted, adapter_folder):
    (adapter_folder / "README.md").write_text("card")
    tensors = {name: tensor + 1 for name, tensor in trained_tensors(adapted).items()}
    save_adapter(adapter_folder, adapted.peft_config["default"], tensors, "tiny/llama", "v2")
    saved = load_file(adapter_folder / "adapter_model.safetensors")
    assert all(torch.equal(saved[saved_name(name)], tensors[name]) for name in tensors)
    assert json.loads((adapter_folder / "adapter_config.json").read_text())["revision"] == "v2"
    assert len(list(adapter_folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({}, PeftuneError, "has no tensors"),
        ({"x.lora_A.default.weight": torch.zeros(0)}, PeftuneError, "x.lora_A.* is empty"),
        ({"x.lora_A.default.weight": torch.full((1,), math.nan)}, TrainingError, "not finite"),
    ],
    ids=["none", "shard", "nan"],
)
def test_what_cannot_be_right_is_not_written(tensors, error, message, adapted, tmp_path):
    with pytest.raises(error, match=message):
        save_adapter(tmp_path, adapted.peft_config["default"], tensors, "tiny/llama")
    assert list(tmp_path.iterdir()) == []
