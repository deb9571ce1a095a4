"""One matrix over all methods and bases: trains, saves, reloads with plain peft, merges."""

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter

from peftune.adapters import AdapterSection, attach, parameter_groups, saved_form
from peftune.export.adapter import save_adapter
from peftune.quantization import QuantizationSection
from tests.adapters.tiny_llama import frozen_tensors, load, logits, train_step, trained_tensors
from tests.export.merging import merge_folders

METHODS = {
    "lora": {"method": "lora", "r": 4},
    "rslora": {"method": "lora", "r": 4, "use_rslora": True},
    "loraplus": {"method": "lora", "r": 4, "loraplus_lr_ratio": 4.0},
    "head": {"method": "lora", "r": 4, "modules_to_save": ["lm_head"]},
    "patterns": {
        "method": "lora",
        "r": 4,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"down_proj": 8, r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"v_proj": 3},
    },
    "dora": {"method": "dora", "r": 4},
    "ia3": {"method": "ia3"},
}
DECOMPOSED = {
    "pissa": {"method": "lora", "r": 4, "init_lora_weights": "pissa"},
    "olora": {"method": "lora", "r": 4, "init_lora_weights": "olora"},
    "pissa_rslora": {"method": "lora", "r": 4, "use_rslora": True, "init_lora_weights": "pissa"},
    "olora_patterns": METHODS["patterns"] | {"init_lora_weights": "olora", "use_rslora": True},
}
BASES = {
    "plain": None,
    "nf4": {"method": "bnb-nf4"},
    "fp4_single": {"method": "bnb-fp4", "double_quant": False},
    "int8": {"method": "bnb-int8"},
}
CASES = [(method, base) for base in BASES for method in METHODS if base != "fp4_single"]
CASES += [("lora", "fp4_single")] + [(method, "plain") for method in DECOMPOSED]


def sections(method: str, base: str):
    adapter = TypeAdapter(AdapterSection).validate_python((METHODS | DECOMPOSED)[method])
    quantization = BASES[base]
    if quantization is not None:
        quantization = TypeAdapter(QuantizationSection).validate_python(quantization)
    return adapter, quantization


@pytest.mark.parametrize(("method", "base"), CASES, ids=lambda value: value)
def test_trains_saves_reloads_and_merges(method, base, llama, tmp_path):
    section, quantization = sections(method, base)
    model = load(llama, quantization)
    untouched = logits(model)
    torch.manual_seed(0)
    adapted = attach(section, model)
    torch.testing.assert_close(logits(adapted), untouched, rtol=1e-5, atol=1e-5)

    initial, frozen = trained_tensors(adapted), frozen_tensors(adapted)
    assert {tensor.dtype for tensor in initial.values()} == {torch.float32}
    trained = _train(adapted, section)
    for name, tensor in trained.items():
        assert not torch.equal(tensor, initial[name]), f"{name} did not move"
    for name, tensor in frozen_tensors(adapted).items():
        assert torch.equal(tensor, frozen[name]), f"{name} was changed"

    expected = logits(adapted)
    tensors, config = saved_form(section, initial, trained, adapted.peft_config["default"])
    save_adapter(tmp_path, config, tensors, base_model_name_or_path="tiny/llama")
    reloaded = PeftModel.from_pretrained(load(llama, quantization), tmp_path)
    tolerance = 1e-5 if method in DECOMPOSED else 1e-6
    torch.testing.assert_close(logits(reloaded), expected, rtol=tolerance, atol=tolerance)

    out = tmp_path / "merged"
    merge_folders(tmp_path, llama, out, quantization=quantization)
    torch.testing.assert_close(logits(load(out)), expected, rtol=1e-5, atol=1e-5)


def _train(adapted, section) -> dict[str, torch.Tensor]:
    """Eight steps with an evaluation in the middle; the loss must fall."""
    parameters = list(adapted.named_parameters())
    # (IA)³ has so few parameters that it needs larger steps to show.
    learning_rate = 0.1 if section.method == "ia3" else 0.01
    optimizer = torch.optim.AdamW(parameter_groups(section, parameters, learning_rate, 0.0))
    losses = []
    for step in range(8):
        if step == 4:
            logits(adapted)
        loss, norm = train_step(adapted, optimizer)
        assert norm > 0
        for name, parameter in parameters:
            if parameter.requires_grad:
                assert torch.isfinite(parameter.grad).all(), name
        losses.append(loss)
    assert losses[-1] < losses[0] - 0.01
    return trained_tensors(adapted)
