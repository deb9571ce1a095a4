"""Rotations of queries and keys: the numbers of transformers, and gradients that are theirs."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as every_two
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from peftune.model.rotary import is_known, rotate, serve

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_those_of_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(1, heads, 5, 8, dtype=dtype, requires_grad=True) for heads in (4, 2))
    cos, sin = (torch.randn(1, 5, 8, dtype=dtype) for _ in range(2))
    slopes = torch.randn_like(q), torch.randn_like(k)
    theirs, ours = apply_rotary_pos_emb(q, k, cos, sin), rotate(None, q, k, cos, sin)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(a, b)
    gradients = (torch.autograd.grad(made, (q, k), slopes) for made in (theirs, ours))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("config", [LlamaConfig(**SIZES), Qwen3Config(head_dim=8, **SIZES)])
def test_layers_of_a_model_are_served(config: Any) -> None:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(0, 64, (2, 6))
    before = model(input_ids=ids).logits
    assert serve(model) == 2
    assert serve(model) == 0
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_part_of_a_head_is_left_to_its_function() -> None:
    config = Phi3Config(partial_rotary_factor=0.5, pad_token_id=0, **SIZES)
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(0, 64, (2, 6))
    before = model(input_ids=ids).logits
    assert serve(model) == 2
    assert torch.equal(model(input_ids=ids).logits, before)


def test_another_model_of_the_class_keeps_its_code() -> None:
    one, other = (AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)) for _ in range(2))
    serve(one)
    assert not [name for name, module in other.named_modules() if "forward" in vars(module)]


def test_another_function_of_the_name_is_left_alone() -> None:
    def apply_rotary_pos_emb(
        q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1
    ) -> tuple[Any, Any]:
        return rotate(None, q, k, cos, -sin, unsqueeze_dim)

    assert not is_known(apply_rotary_pos_emb) and not is_known(every_two) and not is_known(None)
