"""Models in the shape of large ones, with random weights, made on the device piece by piece."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

SHAPES: dict[str, dict[str, int]] = {
    "8b": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "70b": {
        "vocab_size": 128_256,
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "toy": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def random_model(shape: str, quantized: bool, device: torch.device) -> PreTrainedModel:
    """A frozen Llama in bfloat16; `quantized` holds all but its head in NF4, and never more than one
    layer in anything else."""
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=131_072,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    torch.manual_seed(0)
    for name, module in [*model.named_modules()]:
        if quantized and isinstance(module, torch.nn.Linear) and name != "lm_head":
            model.set_submodule(name, nf4(module, device))
            continue
        for key, parameter in [*module.named_parameters(recurse=False)]:
            module.register_parameter(key, drawn(parameter, device))
    # Its frequencies are a buffer, which no checkpoint holds.
    rotary: Any = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config).to(device)
    model.set_attn_implementation("sdpa")
    return model.requires_grad_(False)


def drawn(like: torch.nn.Parameter, device: torch.device) -> torch.nn.Parameter:
    made = torch.ones if like.dim() == 1 else torch.randn
    weight = made(like.shape, dtype=like.dtype, device=device)
    return torch.nn.Parameter(weight if like.dim() == 1 else weight.mul_(0.02), requires_grad=False)


def nf4(linear: torch.nn.Linear, device: torch.device) -> torch.nn.Module:
    import bitsandbytes as bnb

    made = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    weight = drawn(linear.weight, device).data
    made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    # As in peftune's own loading: evaluation must not repack the weights on a CPU.
    made.support_avx512bf16_for_cpu = False
    return made
