"""What a run leaves on disk besides its records: adapter, tokenizer, merged model, model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from peftune.adapters import saved_form
from peftune.adapters.targets import expert_weights
from peftune.errors import ModelError
from peftune.export.adapter import save_adapter
from peftune.model.base import load_base, load_config
from peftune.model.head import Head, head_modules
from peftune.preparation import Prepared
from peftune.quantization import BACKENDS
from peftune.recipe import Recipe
from peftune.records import storing, write_json, write_text

LABELS = "labels.json"
SELFTEST = "selftest.json"
Tensors = Mapping[str, torch.Tensor]
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_frozen(recipe: Recipe, head: Head, device: str, sharded: bool) -> tuple[Any, list[str]]:
    """The base model as the adapter is trained on it, quantized if the recipe says so.

    Also returns the modules that start from random numbers.
    """
    section = recipe.quantization
    if section is None:
        return load_base(recipe.model, head, {}, device)
    backend = BACKENDS[section.method]
    whole = head_modules(load_config(recipe.model), head)
    arguments = backend.load_kwargs(section, recipe.model.dtype, sharded, whole)
    model, new = load_base(recipe.model, head, arguments, device)
    _refuse_whole_experts(model, section.method)
    backend.prepare(model)
    return model, new


def _refuse_whole_experts(model: Any, method: str) -> None:
    """bitsandbytes passes over weights that are no linear layers, without a word."""
    experts = expert_weights(model)
    if experts:
        share = sum(model.get_parameter(name).numel() for name in experts) / model.num_parameters()
        raise ModelError(
            f"quantization.method: {method} cannot hold fused experts, {share:.0%} of this model's "
            f"parameters (the first is {experts[0]}); set quantization: null."
        )


def write_adapter(
    recipe: Recipe, folder: Path, config: Any, initial: Tensors, trained: Tensors
) -> None:
    """The adapter in the form that plain peft loads onto the original base."""
    tensors, saved_config = saved_form(recipe.adapter, dict(initial), dict(trained), config)
    save_adapter(
        folder, saved_config, tensors, recipe.model.model_name_or_path, recipe.model.revision
    )


def write_tokenizer(prepared: Prepared, folder: Path) -> None:
    """Tokenizer, chat template and a generation config that knows where an answer ends."""
    tokenizer = prepared.tokenizer
    # Written twice, as the library's own error for a full disk has no type of its own.
    write_text(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=True))
    with storing(folder, 0):
        tokenizer.save_pretrained(folder)
    if prepared.objective.writes:
        GenerationConfig(
            eos_token_id=list(prepared.end_ids),
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=prepared.batching.decoder_start_token_id,
            forced_bos_token_id=prepared.forced_first_token,
        ).save_pretrained(folder)
    if prepared.head.labels:
        labels = {"objective": prepared.objective.name, "labels": list(prepared.head.labels)}
        write_json(folder / LABELS, labels)
