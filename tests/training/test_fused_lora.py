"""An adapted layer as one function: the numbers of peft, and its input kept once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import TypeAdapter
from transformers import LlamaConfig, LlamaForCausalLM

from peftune.quantization import BACKENDS, QuantizationSection
from peftune.training import fused_lora
from peftune.training.draws import row_draws
from peftune.training.dropout import dropout_from
from peftune.training.fused_lora import fuse
from peftune.training.recomputation import recompute
from peftune.training.section import Recomputation

LAYERS = 7 * 2


def model(dtype: torch.dtype = torch.float32, **lora: Any) -> PeftModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return adapt(LlamaForCausalLM(config).to(dtype), **lora)


def adapt(base: LlamaForCausalLM, **lora: Any) -> PeftModel:
    """With a LoRA that already changes it."""
    torch.manual_seed(1)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **lora))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape)
    assert isinstance(adapted, PeftModel)
    return adapted


def outcome(adapted: PeftModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Scores, and the gradients of their squares."""
    adapted.zero_grad()
    torch.manual_seed(3)
    logits = adapted(input_ids=torch.randint(0, 64, (3, 9))).logits
    logits.float().square().sum().backward()
    found = {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}
    return logits.detach(), {name: gradient.clone() for name, gradient in found.items()}


def test_numbers_are_those_of_peft() -> None:
    adapted = model()
    logits, gradients = outcome(adapted)
    assert fuse(adapted) == LAYERS
    fused_logits, fused_gradients = outcome(adapted)
    torch.testing.assert_close(fused_logits, logits, rtol=1e-6, atol=1e-6)
    assert fused_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_no_further_from_float32_than_peft_is() -> None:
    narrow = model(torch.bfloat16)
    wide = model(torch.bfloat16).float()
    exact, by_peft = outcome(wide), outcome(narrow)
    fuse(narrow)
    fused = outcome(narrow)
    assert distance(fused[0], exact[0]) < 1.1 * distance(by_peft[0], exact[0])
    ours, theirs = (
        sum(distance(found[1][name], gradient) for name, gradient in exact[1].items())
        for found in (fused, by_peft)
    )
    assert ours < 1.1 * theirs


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("is_dense", [True, False])
def test_products_in_parts_are_as_near_to_float32_as_peft_is(
    is_dense: bool, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs, whose units multiply bfloat16 alone; of 1,000 tokens, so that chance counts little.

    The update is half as large as what it updates.
    """
    monkeypatch.setattr(fused_lora, "is_split", lambda x, factor: x.dtype is torch.bfloat16)
    monkeypatch.setattr(fused_lora, "has_dense_weight", lambda base, x: is_dense)
    draws = row_draws(0, 0, {"row_ids": torch.arange(4)[:, None]})
    x = torch.randn(4, 250, 32, generator=torch.manual_seed(2))

    def found(adapted: PeftModel) -> list[torch.Tensor]:
        layer = adapted.train().get_submodule("base_model.model.model.layers.0.mlp.gate_proj")
        weights = [p for p in layer.parameters() if p.requires_grad]
        inputs = x.bfloat16().to(layer.base_layer.weight.dtype).requires_grad_()
        with dropout_from(replace(draws)):
            made = layer(inputs)
        slope = torch.randn(made.shape, generator=torch.manual_seed(4)).bfloat16()
        return [made, *torch.autograd.grad(made, [inputs, *weights], slope.to(made.dtype))]

    lora: Any = {"lora_alpha": 2, "lora_dropout": dropout}
    narrow = model(torch.bfloat16, **lora)
    exact, by_peft = found(model(torch.bfloat16, **lora).float()), found(narrow)
    fuse(narrow)
    for ours, theirs, true in zip(found(narrow), by_peft, exact, strict=True):
        assert distance(ours, true) < max(1.05 * distance(theirs, true), 1e-5)


def test_layers_that_multiply_in_another_format_are_not_split(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fused_lora, "is_split", lambda x, factor: x.dtype is torch.bfloat16)
    x = torch.randn(2, 3, 32, dtype=torch.bfloat16)
    for compute_dtype, split in ((torch.float32, False), (torch.bfloat16, True), (None, True)):
        adapted = quantized("bnb-nf4", torch.bfloat16, tmp_path)
        layer: Any = adapted.get_submodule("base_model.model.model.layers.0.mlp.gate_proj")
        layer.base_layer.compute_dtype = compute_dtype
        assert fused_lora.are_split([layer], x) is split
        fuse(adapted)
        assert layer(x).dtype is torch.bfloat16


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["bnb-nf4", "bnb-int8"])
def test_quantized_layers_are_those_of_bitsandbytes(
    method: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    adapted = quantized(method, dtype, tmp_path)
    logits, gradients = outcome(adapted)
    assert fuse(adapted) == LAYERS
    fused_logits, fused_gradients = outcome(adapted)
    bound = 1e-5 if dtype is torch.float32 else 3e-2
    assert distance(fused_logits, logits) < bound
    for name, gradient in gradients.items():
        assert distance(fused_gradients[name], gradient) < bound, name


def quantized(method: str, dtype: torch.dtype, folder: Path) -> PeftModel:
    model(dtype).unload().save_pretrained(folder)
    kinds: Any = QuantizationSection
    section, name = TypeAdapter(kinds).validate_python({"method": method}), str(dtype)
    keys = BACKENDS[method].load_kwargs(section, name.removeprefix("torch."), False)
    base = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": "cpu"}, **keys)
    BACKENDS[method].prepare(base)
    return adapt(base)


def test_one_input_of_several_layers_is_kept_once_and_as_it_is() -> None:
    adapted, kept = model(torch.bfloat16), []
    fuse(adapted)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append((tensor.data_ptr(), tensor.dtype, tuple(tensor.shape)))
        return tensor

    attention = adapted.get_base_model().model.layers[1].self_attn
    x = torch.randn(1, 9, 32, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for name in ("q_proj", "k_proj", "v_proj"):
            attention.get_submodule(name)(x)
    inputs = [one for one in kept if one[2] == x.shape]
    assert inputs == [(x.data_ptr(), torch.bfloat16, (1, 9, 32))]
    assert not [one for one in kept if one[1] is torch.float32 and one[2][-2:] == (9, 32)]


def test_an_adapter_that_is_off_is_off() -> None:
    adapted = model()
    fuse(adapted)
    ids = torch.randint(0, 64, (2, 5))
    with adapted.disable_adapter():
        off = adapted(input_ids=ids).logits
    base = model().unload()
    assert torch.equal(off, base(input_ids=ids).logits)


@pytest.mark.parametrize("kept", [False, True, "selective"])
def test_dropout_is_that_of_peft(kept: Recomputation) -> None:
    adapted = model(lora_dropout=0.3)
    recompute(adapted.get_base_model(), kept)
    adapted.train()
    draws = row_draws(0, 0, {"row_ids": torch.arange(3)[:, None]})
    with dropout_from(replace(draws)):
        logits, gradients = outcome(adapted)
    assert fuse(adapted) == LAYERS
    with dropout_from(replace(draws)):
        fused_logits, fused_gradients = outcome(adapted)
    torch.testing.assert_close(fused_logits, logits, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, rtol=1e-4, atol=1e-4)
    adapted.eval()
    assert not torch.equal(outcome(adapted)[0], fused_logits)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_bias": True}])
def test_other_kinds_keep_the_code_of_peft(lora: dict[str, Any]) -> None:
    assert fuse(model(**lora)) == 0


def test_autocast_is_computed_by_peft() -> None:
    adapted = model()
    with torch.autocast("cpu", torch.bfloat16):
        expected = outcome(adapted)[0]
        fuse(adapted)
        assert torch.equal(outcome(adapted)[0], expected)
