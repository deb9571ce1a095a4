"""The model of a recipe with its adapter, from its configuration alone, for a trace."""

import copy
from typing import Any

import torch
from peft import PeftModel
from transformers import PretrainedConfig
from transformers.models.auto import modeling_auto

from peftune.adapters import attach
from peftune.artefacts import DTYPES
from peftune.engines.launch import Launch
from peftune.forecast.tracing import Trace
from peftune.model.head import Head, new_modules
from peftune.quantization import BACKENDS
from peftune.recipe import Recipe
from peftune.training.dropout import draw_by_rows
from peftune.training.recomputation import recompute
from peftune.training.shortcuts import compute_fast


def adapted_skeleton(
    recipe: Recipe,
    config: PretrainedConfig,
    head: Head,
    has_pooler: bool,
    launch: Launch,
    trace: Trace,
) -> PeftModel:
    """What `pipeline.adapted_model` makes, inside of `tracing`, weights and adapter apart.

    `has_pooler`: the checkpoint has one, so that it is not trained from random numbers.
    """
    trace.label = "weights"
    model = frozen_skeleton(recipe, config, head, launch.sharded)
    new = trained_whole(model, head, has_pooler)
    draw_by_rows(model)
    recompute(model, recipe.train.gradient_checkpointing)
    trace.label = "adapter"
    adapted = attach(recipe.adapter, model, head.objective.task_type, new)
    return compute_fast(
        adapted,
        padding_free=recipe.train.padding_free,
        generates=head.objective.generates,
        sharded=launch.sharded,
        gathers_weights=launch.engine == "zero3",
    )


def frozen_skeleton(recipe: Recipe, config: PretrainedConfig, head: Head, sharded: bool) -> Any:
    """The base model with the output layer of `head`, quantized if the recipe says so."""
    # The kernels of flash attention take the memory of torch's own.
    kind = "eager" if recipe.model.attn_implementation == "eager" else "sdpa"
    model = modeling_auto.__dict__[head.objective.auto_class].from_config(
        copy.deepcopy(config), dtype=DTYPES[recipe.model.dtype], attn_implementation=kind
    )
    if not head.objective.generates:
        model.config.get_text_config().pad_token_id = head.pad_token_id
    if recipe.quantization is not None:
        _quantize(model, recipe, head, sharded)
    return model.requires_grad_(False)


def trained_whole(model: Any, head: Head, has_pooler: bool) -> list[str]:
    """Names of the modules that start from random numbers."""
    absent = set() if has_pooler else {f"{model.base_model_prefix}.pooler.weight"}
    names = dict(model.named_modules())
    return [name for name in new_modules(model, head.objective, absent) if name in names]


def _quantize(model: Any, recipe: Recipe, head: Head, sharded: bool) -> None:
    """Put layers of few bits in the place of those that loading would quantize."""
    from bitsandbytes.functional import quantize_4bit
    from transformers.quantizers import AutoHfQuantizer

    assert recipe.quantization is not None
    backend = BACKENDS[recipe.quantization.method]
    whole = trained_whole(model, head, has_pooler=False)
    keys = backend.load_kwargs(recipe.quantization, recipe.model.dtype, sharded, whole)
    chosen = keys["quantization_config"]
    dtype = DTYPES[recipe.model.dtype]
    AutoHfQuantizer.from_config(chosen, pre_quantized=False).preprocess_model(
        model=model, device_map={"": "cpu"}
    )
    for layer in backend.quantized_layers(model).values():
        plain = torch.empty(layer.out_features, layer.in_features, dtype=dtype)
        if chosen.load_in_8bit:
            layer.weight = _eight_bits(plain)
        else:
            packed, state = quantize_4bit(
                plain,
                compress_statistics=chosen.bnb_4bit_use_double_quant,
                quant_type=chosen.bnb_4bit_quant_type,
                quant_storage=chosen.bnb_4bit_quant_storage,
            )
            layer.weight = _four_bits(packed, state)
        if layer.bias is not None:
            layer.bias = torch.nn.Parameter(torch.empty(layer.out_features, dtype=dtype), False)
    setattr(model, "is_loaded_in_8bit" if chosen.load_in_8bit else "is_loaded_in_4bit", True)
    backend.prepare(model)


def _four_bits(packed: torch.Tensor, state: Any) -> torch.nn.Parameter:
    from bitsandbytes.nn import Params4bit

    return Params4bit(
        packed,
        quant_state=state,
        blocksize=state.blocksize,
        compress_statistics=state.nested,
        quant_type=state.quant_type,
        quant_storage=packed.dtype,
        bnb_quantized=True,
    )


def _eight_bits(plain: torch.Tensor) -> torch.nn.Parameter:
    from bitsandbytes.nn import Int8Params

    codes, scales = plain.to(torch.int8), plain.float().amax(dim=1)
    return Int8Params(codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales)
