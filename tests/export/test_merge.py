from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftune.adapters import saved_form
from peftune.adapters.lora import LoraSection
from peftune.errors import ModelError, PeftuneError
from peftune.export.adapter import save_adapter
from peftune.export.merge import merge
from peftune.quantization.bnb4bit import Bnb4bitSection, dequantize
from tests.adapters.tiny_llama import load, logits, trained_tensors
from tests.export.conftest import make_adapted


def test_bfloat16_weights_are_the_float32_sum_rounded_once(
    adapted, adapter_folder, llama, tmp_path
):
    out = tmp_path / "merged"
    merge(adapter_folder, partial(load, llama), out, "original", torch.bfloat16)
    merged = load(out, dtype="bfloat16").state_dict()
    for name, tensor in adapted.merge_and_unload().state_dict().items():
        assert torch.equal(merged[name], tensor.to(torch.bfloat16)), name
    assert not list(tmp_path.glob("*.partial"))
    assert not list(out.glob("*.bin"))


def test_the_base_of_a_merge_is_the_users_choice(adapter_folder, llama, tmp_path):
    quantization = Bnb4bitSection(method="bnb-nf4")
    original, dequantized = tmp_path / "original", tmp_path / "dequantized"
    merge(adapter_folder, partial(load, llama), original, "original", torch.float32)
    load_quantized = partial(load, llama, quantization)
    merge(adapter_folder, load_quantized, dequantized, "dequantized", torch.float32)
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
    merge(tmp_path, partial(load, tied_llama), tmp_path / "m", "original", torch.float32)
    merged = load(tmp_path / "m")
    assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()
    assert list((tmp_path / "m").glob("*.safetensors")) and merged.config.tie_word_embeddings
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-5, atol=1e-5)


def test_a_merge_that_changes_nothing_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * ("lora_A" in name)))
    with pytest.raises(PeftuneError, match=r"^The merge changed nothing: in torch.float32"):
        merge(adapter_folder, partial(load, llama), tmp_path / "m", "original", torch.float32)
    assert not (tmp_path / "m").exists()


def test_an_update_lost_in_rounding_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * 1e-5))
    base = partial(load, llama, dtype="bfloat16")
    with pytest.raises(PeftuneError, match=r"in torch.bfloat16 every weight equals"):
        merge(adapter_folder, base, tmp_path / "m", "original", torch.bfloat16)


def test_an_update_beyond_the_range_of_the_dtype_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name, tensor * 1e4))
    with pytest.raises(PeftuneError, match=r"is not finite in torch.float16; set model.dtype"):
        merge(adapter_folder, partial(load, llama), tmp_path / "m", "original", torch.float16)


def test_a_tensor_without_a_place_in_the_base_is_an_error(adapter_folder, llama, tmp_path):
    _rewrite(adapter_folder, lambda name, tensor: (name.replace("layers.1", "layers.7"), tensor))
    with pytest.raises(ModelError, match=r"has no place for the adapter's .*layers\.7"):
        merge(adapter_folder, partial(load, llama), tmp_path / "m", "original", torch.float32)


def test_dequantized_needs_a_quantized_base(adapter_folder, llama, tmp_path):
    with pytest.raises(ModelError, match=r"export.merge_base: dequantized needs a quantized base"):
        merge(adapter_folder, partial(load, llama), tmp_path / "m", "dequantized", torch.float32)


def _rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(dict(change(name, tensor) for name, tensor in load_file(path).items()), path)
