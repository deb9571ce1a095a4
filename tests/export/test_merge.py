import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from peftune.adapters import saved_form
from peftune.adapters.lora import LoraSection
from peftune.errors import ModelError, PeftuneError
from peftune.export.adapter import save_adapter
from peftune.export.merge import is_finite
from peftune.quantization.bnb4bit import Bnb4bitSection, dequantize
from tests.adapters.tiny_llama import load, logits, trained_tensors
from tests.export.conftest import make_adapted
from tests.export.merging import merge_folders


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_those_of_peft_rounded_once(adapter_folder, llama, tmp_path, dtype):
    """The base is rounded as in training; its sum with the adapter is formed in float32."""
    out, name = tmp_path / "merged", str(dtype).removeprefix("torch.")
    merge_folders(adapter_folder, llama, out, dtype)
    merged = load(out, dtype=name).state_dict()
    by_peft = PeftModel.from_pretrained(load(llama, dtype=name).float(), adapter_folder)
    for name, tensor in by_peft.merge_and_unload().state_dict().items():
        assert torch.equal(merged[name], tensor.to(dtype)), name
    assert not list(tmp_path.glob("*.partial"))
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }


def test_the_base_of_a_merge_is_the_users_choice(adapter_folder, llama, tmp_path):
    quantization = Bnb4bitSection(method="bnb-nf4")
    original, dequantized = tmp_path / "original", tmp_path / "dequantized"
    merge_folders(adapter_folder, llama, original)
    merge_folders(adapter_folder, llama, dequantized, quantization=quantization)
    name = "model.layers.0.mlp.up_proj.weight"
    difference = load(original).state_dict()[name] - load(dequantized).state_dict()[name]
    quantized = load(llama, quantization).get_submodule(name.removesuffix(".weight"))
    rounding = load(llama).state_dict()[name] - dequantize(quantized)
    torch.testing.assert_close(difference, rounding, rtol=0, atol=1e-6)
    assert "quantization_config" not in (dequantized / "config.json").read_text()


@pytest.mark.parametrize("saved", [(), ("lm_head",), ("embed_tokens",)])
def test_tied_embeddings_stay_tied(saved, tied_llama, tmp_path):
    adapted = make_adapted(tied_llama, modules_to_save=saved)
    section = LoraSection(method="lora", r=4, modules_to_save=saved)
    tensors, config = saved_form(
        section, {}, trained_tensors(adapted), adapted.peft_config["default"]
    )
    save_adapter(tmp_path, config, tensors, "tiny/llama")
    merge_folders(tmp_path, tied_llama, tmp_path / "m")
    merged = load(tmp_path / "m")
    assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()
    assert list((tmp_path / "m").glob("*.safetensors")) and merged.config.tie_word_embeddings
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_weights_that_differ_now_are_tied_no_more(target, tied_llama, tmp_path):
    adapted = make_adapted(tied_llama, target_modules=["q_proj"])
    tensors = {
        name: tensor for name, tensor in trained_tensors(adapted).items() if "layers.0" in name
    }
    save_adapter(tmp_path, adapted.peft_config["default"], tensors, "tiny/llama")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config |= {
        "target_modules": ["q_proj"],
        "modules_to_save": [target],
        "layers_to_transform": [0],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    name = {"lm_head": "lm_head", "embed_tokens": "model.embed_tokens"}[target]
    trained = torch.randn(96, 64)
    file = tmp_path / "adapter_model.safetensors"
    save_file(load_file(file) | {f"base_model.model.{name}.weight": trained}, file)
    merge_folders(tmp_path, tied_llama, tmp_path / "m")
    merged, base = load(tmp_path / "m"), load(tied_llama)
    assert not merged.config.tie_word_embeddings
    found = {"lm_head": merged.lm_head, "embed_tokens": merged.model.embed_tokens}
    for one, module in found.items():
        assert torch.equal(module.weight, trained if one == target else base.lm_head.weight), one


def test_a_merge_that_changes_nothing_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * ("lora_A" in name)))
    with pytest.raises(PeftuneError, match=r"^The merge changed nothing: in torch.float32"):
        merge_folders(adapter_folder, llama, tmp_path / "m", torch.float32)
    assert not (tmp_path / "m").exists()


def test_an_update_lost_in_rounding_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * 1e-5))
    with pytest.raises(PeftuneError, match=r"in torch.bfloat16 every weight equals"):
        merge_folders(adapter_folder, llama, tmp_path / "m", torch.bfloat16)


def test_an_update_beyond_the_range_of_the_dtype_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * 1e4))
    with pytest.raises(PeftuneError, match=r"is not finite in torch.float16; set model.dtype"):
        merge_folders(adapter_folder, llama, tmp_path / "m", torch.float16)


def test_a_tensor_without_a_place_in_the_base_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name.replace("layers.1", "layers.7"), tensor))
    with pytest.raises(ModelError, match=r"has no place for the adapter's .*layers\.7"):
        merge_folders(adapter_folder, llama, tmp_path / "m", torch.float32)


def _rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(dict(change(name, tensor) for name, tensor in load_file(path).items()), path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_found(number: float) -> None:
    tensor = torch.randn(300, 20).to(torch.bfloat16)
    assert is_finite(tensor) and is_finite(torch.ones(3, dtype=torch.int64))
    tensor[-1, 7] = number
    assert not is_finite(tensor)
