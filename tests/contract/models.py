"""Tiny models of each class, with dropout wherever their architecture has any."""

from pathlib import Path
from typing import Any

import torch
import transformers

from peftune.objectives import ObjectiveName

VOCABULARY = 64
ENDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 64}
DROPS = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
}
T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.1,
}
RELATIVE = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaForCausalLM",
        {**WIDTHS, **HEADS, "num_key_value_heads": 2, "attention_dropout": 0.1},
    ),
    "bert": ("BertForMaskedLM", {**WIDTHS, **HEADS, **DROPS}),
    "deberta": ("DebertaV2ForMaskedLM", {**WIDTHS, **HEADS, **DROPS, **RELATIVE}),
    "t5": ("T5ForConditionalGeneration", {**T5, "decoder_start_token_id": 0}),
    "bart": ("BartForConditionalGeneration", BART),
}
LEARNT: dict[str, tuple[ObjectiveName, ...]] = {
    "llama": ("causal", "label"),
    "bert": ("label", "masked", "tags", "span"),
    "deberta": ("label",),
    "t5": ("seq2seq",),
    "bart": ("seq2seq",),
}


def save_model(name: str, folder: Path) -> Path:
    """Weights so large that rows differ in their loss by far more than rounding."""
    model, config = MODELS[name]
    model_class = getattr(transformers, model)
    torch.manual_seed(0)
    made = model_class(model_class.config_class(**ENDS, **config))
    # T5 does not divide its attention scores by anything.
    size = 0.05 if name == "t5" else 0.1
    for parameter_name, parameter in made.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" in parameter_name else size)
    made.save_pretrained(folder)
    # Never read here, but a model without a tokenizer is refused.
    (folder / "tokenizer.json").write_text("{}")
    return folder
