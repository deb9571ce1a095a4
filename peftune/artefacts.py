"""What a run leaves on disk besides its records: adapter, tokenizer, merged model, model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from peftune.adapters import saved_form
from peftune.export.adapter import save_adapter
from peftune.export.card import base_license, model_card
from peftune.export.merge import merge
from peftune.model.base import load_base
from peftune.preparation import Prepared
from peftune.quantization import BACKENDS
from peftune.recipe import Recipe
from peftune.records import write_text

Tensors = Mapping[str, torch.Tensor]
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_frozen(recipe: Recipe, device: str, sharded: bool) -> Any:
    """The base model as the adapter is trained on it: quantized if the recipe says so."""
    section = recipe.quantization
    if section is None:
        return load_base(recipe.model, {}, device)
    backend = BACKENDS[section.method]
    model = load_base(
        recipe.model, backend.load_kwargs(section, recipe.model.dtype, sharded), device
    )
    backend.prepare(model)
    return model


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
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        eos_token_id=list(prepared.end_ids), pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)


def write_merged(recipe: Recipe, adapter_folder: Path, out: Path) -> None:
    """A model that loads without peft, in `model.dtype`, with everything a loader needs."""

    def load() -> Any:
        if recipe.export.merge_base == "dequantized":
            return load_frozen(recipe, "cpu", sharded=False)
        return load_base(recipe.model, {}, "cpu")

    tokenizer = AutoTokenizer.from_pretrained(adapter_folder)
    generation = GenerationConfig.from_pretrained(adapter_folder)
    merge(adapter_folder, load, out, recipe.export.merge_base, DTYPES[recipe.model.dtype])
    tokenizer.save_pretrained(out)
    generation.save_pretrained(out)


def write_card(
    recipe: Recipe,
    folder: Path,
    prepared: Prepared,
    results: Mapping[str, Any],
    train_results: Mapping[str, float],
) -> None:
    """README.md of the adapter."""
    counts: dict[str, int] = {split: report.rows for split, report in prepared.reports.items()}
    shown = recipe.model_dump(mode="json")
    card = model_card(shown, counts, results, train_results, base_license(recipe.model))
    write_text(folder / "README.md", card)
