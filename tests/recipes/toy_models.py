"""The architecture of each model in `recipes/`, from its own config class at toy size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers

from tests.recipes import toy_templates as templates
from tests.recipes import toy_tokenizers as tokenizers


@dataclass(frozen=True)
class Toy:
    """How to make a small copy of a model, and what must hold for it."""

    model: str
    """transformers' class of the checkpoint on the Hub."""
    config: Mapping[str, Any]
    """What its configuration says, in the sizes of a toy."""
    tokenizer: Callable[[], Any]
    layers: frozenset[str]
    """Last names of all the linear layers that `all-linear` has to adapt, and of no other."""
    chat_template: str | None = None
    turn_end: str = ""
    """What the template writes behind an answer."""

    def save(self, folder: str) -> None:
        """Model and tokenizer as a folder that can be loaded."""
        tokenizer = self.tokenizer()
        tokenizer.chat_template = self.chat_template
        tokenizer.save_pretrained(folder)
        model_class = getattr(transformers, self.model)
        config = model_class.config_class(**self.config | self._ids(tokenizer))
        model_class(config).save_pretrained(folder)

    def _ids(self, tokenizer: Any) -> dict[str, Any]:
        ids = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        if "text_config" not in self.config:
            return ids
        image = tokenizer.convert_tokens_to_ids("<image_soft_token>")
        inner = {**self.config["text_config"], **ids}
        return {"text_config": inner, "image_token_index": image}


ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
GATED = ATTENTION | {"gate_proj", "up_proj", "down_proj"}
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 514,
    "initializer_range": 0.1,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LLAMA = {**DECODER, "rope_parameters": LLAMA3_ROPE}
# Heads are wider than hidden_size / num_attention_heads.
QWEN3 = {**DECODER, "head_dim": 16}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
GEMMA3 = {
    **DECODER,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "tie_word_embeddings": True,
}
SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0] * 6,
    "long_factor": [2.0] * 6,
    "original_max_position_embeddings": 256,
}
PHI4 = {
    **DECODER,
    "hidden_size": 64,
    "partial_rotary_factor": 0.75,
    "rope_parameters": LONGROPE,
    "original_max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
T5_LAYERS = frozenset({"q", "k", "v", "o", "wi_0", "wi_1", "wo"})
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 512,
    "init_std": 0.1,
    "decoder_start_token_id": 2,
}
BART_LAYERS = frozenset({"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"})
BERT_LAYERS = frozenset({"query", "key", "value", "dense"})
DEBERTA = {
    **ENCODER,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "pooler_hidden_size": 32,
}
MODERNBERT = {
    **ENCODER,
    "max_position_embeddings": 512,
    "global_attn_every_n_layers": 2,
    "local_attention": 16,
    "initializer_cutoff_factor": 2.0,
    "cls_token_id": 2,
    "sep_token_id": 3,
}

LLAMA_CHAT = (tokenizers.llama3, GATED, templates.LLAMA3, "<|eot_id|>")
QWEN3_CHAT = (templates.QWEN3, "<|im_end|>")
TIED = {"tie_word_embeddings": True}
TOYS = {
    "meta-llama/Llama-3.2-1B-Instruct": Toy("LlamaForCausalLM", {**LLAMA, **TIED}, *LLAMA_CHAT),
    "meta-llama/Llama-3.1-8B-Instruct": Toy("LlamaForCausalLM", LLAMA, *LLAMA_CHAT),
    "meta-llama/Llama-3.3-70B-Instruct": Toy("LlamaForCausalLM", LLAMA, *LLAMA_CHAT),
    "Qwen/Qwen2.5-1.5B-Instruct": Toy(
        "Qwen2ForCausalLM",
        {**DECODER, **TIED},
        tokenizers.qwen,
        GATED,
        templates.CHATML,
        "<|im_end|>",
    ),
    "Qwen/Qwen3-4B": Toy(
        "Qwen3ForCausalLM", {**QWEN3, **TIED}, tokenizers.qwen, GATED, *QWEN3_CHAT
    ),
    "Qwen/Qwen3-30B-A3B": Toy(
        "Qwen3MoeForCausalLM",
        {**QWEN3, **EXPERTS},
        tokenizers.qwen,
        ATTENTION,
        *QWEN3_CHAT,
    ),
    "allenai/OLMoE-1B-7B-0924-Instruct": Toy(
        "OlmoeForCausalLM",
        {**DECODER, "num_experts": 4, "num_experts_per_tok": 2},
        tokenizers.olmoe,
        ATTENTION,
        templates.OLMOE,
        "<|endoftext|>",
    ),
    "google/gemma-3-1b-pt": Toy("Gemma3ForCausalLM", GEMMA3, tokenizers.gemma, GATED),
    "google/gemma-3-4b-it": Toy(
        "Gemma3ForConditionalGeneration",
        {"text_config": GEMMA3, "vision_config": SIGLIP, "mm_tokens_per_image": 1},
        tokenizers.gemma,
        GATED,
        templates.GEMMA,
        "<end_of_turn>",
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": Toy(
        "MistralForCausalLM",
        {**DECODER, "sliding_window": None},
        tokenizers.mistral,
        GATED,
        templates.MISTRAL,
        "</s>",
    ),
    "microsoft/Phi-4-mini-instruct": Toy(
        "Phi3ForCausalLM",
        PHI4,
        tokenizers.phi,
        frozenset({"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        templates.PHI,
        "<|end|>",
    ),
    "HuggingFaceTB/SmolLM2-360M-Instruct": Toy(
        "LlamaForCausalLM",
        {**DECODER, **TIED},
        tokenizers.chatml,
        GATED,
        templates.CHATML,
        "<|im_end|>",
    ),
    "HuggingFaceTB/SmolLM3-3B": Toy(
        "SmolLM3ForCausalLM",
        {**DECODER, **TIED, "no_rope_layers": [1, 0]},
        tokenizers.chatml,
        GATED,
        templates.CHATML,
        "<|im_end|>",
    ),
    "google/flan-t5-base": Toy("T5ForConditionalGeneration", T5, tokenizers.t5, T5_LAYERS),
    "google/flan-t5-xl": Toy("T5ForConditionalGeneration", T5, tokenizers.t5, T5_LAYERS),
    "google/mt5-base": Toy("MT5ForConditionalGeneration", T5, tokenizers.t5, T5_LAYERS),
    "facebook/bart-base": Toy("BartForConditionalGeneration", BART, tokenizers.bart, BART_LAYERS),
    "facebook/nllb-200-distilled-600M": Toy(
        "M2M100ForConditionalGeneration",
        {**BART, "scale_embedding": True},
        tokenizers.nllb,
        BART_LAYERS,
    ),
    "google-bert/bert-base-uncased": Toy(
        "BertForPreTraining", ENCODER, tokenizers.bert, BERT_LAYERS
    ),
    "FacebookAI/roberta-base": Toy(
        "RobertaForMaskedLM", {**ENCODER, "type_vocab_size": 1}, tokenizers.bart, BERT_LAYERS
    ),
    "FacebookAI/xlm-roberta-base": Toy(
        "XLMRobertaForMaskedLM",
        {**ENCODER, "type_vocab_size": 1},
        tokenizers.xlm_roberta,
        BERT_LAYERS,
    ),
    "microsoft/deberta-v3-base": Toy(
        "DebertaV2ForMaskedLM",
        DEBERTA,
        tokenizers.deberta,
        frozenset({"query_proj", "key_proj", "value_proj", "dense"}),
    ),
    "answerdotai/ModernBERT-base": Toy(
        "ModernBertForMaskedLM",
        MODERNBERT,
        tokenizers.modernbert,
        frozenset({"Wqkv", "Wo", "Wi"}),
    ),
}
