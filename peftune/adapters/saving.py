"""From trained tensors to the LoRA that plain peft loads onto the original base weights."""

import copy
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor


def difference_tensors(
    initial: "dict[str, Tensor]", trained: "dict[str, Tensor]", use_rslora: bool
) -> "dict[str, Tensor]":
    """The change of B·A since the start, written as one pair of twice the rank.

    PiSSA and OLoRA train W - s·B₀·A₀ + s·B·A, so against W the update is
    s·(B·A - B₀·A₀) = s·[B | -B₀]·[A ; A₀] (arXiv:2404.02948, appendix C).
    lora_A (r, in) becomes (2r, in), lora_B (out, r) becomes (out, 2r); the rest passes unchanged.
    Twice the alpha keeps alpha/r; under rsLoRA, alpha/sqrt(r) grows by sqrt(2), taken out of B.
    """
    import torch

    shrink = math.sqrt(0.5) if use_rslora else 1.0
    tensors = {}
    for name, tensor in trained.items():
        if ".lora_A." in name:
            tensor = torch.cat([tensor, initial[name]], dim=0)
        elif ".lora_B." in name:
            tensor = torch.cat([tensor, -initial[name]], dim=1) * shrink
        tensors[name] = tensor
    return tensors


def difference_config(config: "LoraConfig") -> "LoraConfig":
    """The configuration for `difference_tensors`: a plain start, ranks and alphas doubled."""
    doubled = copy.deepcopy(config)
    doubled.init_lora_weights = True
    doubled.r, doubled.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    doubled.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    doubled.alpha_pattern = {
        name: 2 * alpha for name, alpha in (config.alpha_pattern or {}).items()
    }
    return doubled


def with_tied_heads(tensors: "dict[str, Tensor]", config: "LoraConfig") -> "dict[str, Tensor]":
    """`tensors` plus, for each layer tied to a trained input embedding, the copy peft asks for."""
    if not config.ensure_weight_tying:
        return tensors
    copies = {}
    for head in config.modules_to_tie or ():
        for name, tensor in tensors.items():
            if name.endswith("embed_tokens.modules_to_save.default.weight"):
                copies[f"base_model.model.{head}.modules_to_save.default.weight"] = tensor.clone()
    return tensors | copies
