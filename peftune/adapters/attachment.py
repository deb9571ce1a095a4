"""Puts an adapter on a frozen model: what trains is float32, everything else stays as loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftune.adapters.targets import (
    check_modules_to_save,
    check_parameters,
    check_patterns,
    check_targets,
    expert_weights,
    linear_layers,
    names,
    outside_language_model,
    tied_layers,
)
from peftune.errors import ModelError

if TYPE_CHECKING:
    import torch
    from peft import IA3Config, LoraConfig, PeftModel
    from transformers import PreTrainedModel


def attach_config(config: "LoraConfig | IA3Config", model: "PreTrainedModel") -> "PeftModel":
    """Check `config` against `model` and attach it, in place.

    Raises ModelError when a name matches nothing, or a rank is too large for the initialisation.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(config, model)
    check_modules_to_save(config, model)
    config = replace(config, exclude_modules=outside_language_model(model))
    if config.target_modules == "all-linear" and expert_weights(model):
        # peft would also mean layers that experts had in earlier releases of transformers.
        head = model.get_output_embeddings()
        layers = [name for name in linear_layers(model) if model.get_submodule(name) is not head]
        config = replace(config, target_modules=layers)
    dtype = model.dtype
    if isinstance(config, LoraConfig):
        adapted = _attach_low_rank(config, model)
    else:
        adapted = get_peft_model(model, config)
    _train_in_float32(adapted, dtype)
    return adapted


def with_new_modules(
    config: "LoraConfig | IA3Config", model: "PreTrainedModel", new_modules: Sequence[str]
) -> "LoraConfig | IA3Config":
    """`config` with these modules trained in full, and every adapted layer outside of them.

    peft's all-linear would also put an adapter inside a head that it does not know by name.
    """
    inside = tuple(f"{name}." for name in new_modules)
    targets = config.target_modules
    if targets == "all-linear":
        layers = linear_layers(model)
        targets = [n for n in layers if n not in new_modules and not n.startswith(inside)]
    saved = [*(config.modules_to_save or ()), *new_modules]
    return replace(config, target_modules=targets, modules_to_save=saved)


def _attach_low_rank(config: "LoraConfig", model: "PreTrainedModel") -> "PeftModel":
    from peft import get_peft_model

    check_parameters(config, model)
    saved, tied = config.modules_to_save or (), tied_layers(model)
    if any(names(name, layer) for name in saved for layer in tied):
        _refuse_tied_pair(tied, model.config.is_encoder_decoder)
        config = replace(config, ensure_weight_tying=True)
    decomposes = isinstance(config.init_lora_weights, str)
    with _weights_in_float32(model) if decomposes else nullcontext():
        adapted: Any = get_peft_model(model, config)
    if config.ensure_weight_tying:
        _refuse_tied_pair(tied, config.modules_to_tie is None)
    check_patterns(config, adapted.base_model.targeted_module_names)
    _check_ranks(adapted)
    return adapted


def _refuse_tied_pair(tied: list[str], cannot: bool) -> None:
    """Where peft `cannot` keep two modules one weight; of an encoder-decoder it mixes up the two."""
    if cannot:
        raise ModelError(
            f"adapter.modules_to_save: {' and '.join(tied)} share one weight, and peft cannot keep "
            "them together under these names; leave them out."
        )


@contextmanager
def _weights_in_float32(model: "PreTrainedModel") -> Iterator[None]:
    """Hold the weights in float32 for a while.

    peft takes A and B out of the weight and then rounds them to its dtype, but subtracts the
    unrounded product: in bfloat16 the model would start with an error of 0.4 % in exactly its
    principal directions. Only the residual is rounded this way.
    """
    dtypes = [(parameter, parameter.dtype) for parameter in model.parameters()]
    for parameter, _ in dtypes:
        parameter.data = parameter.data.float()
    yield
    for parameter, dtype in dtypes:
        parameter.data = parameter.data.to(dtype)


def _check_ranks(model: "PeftModel") -> None:
    """A decomposition has no more directions than the weight's smaller side; peft cuts silently."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper):
            first: Any = layer.lora_A["default"]
            rank, directions = layer.r["default"], first.weight.shape[0]
            if rank != directions:
                raise ModelError(
                    f"adapter.r: {rank} is more than the {directions} singular directions of "
                    f"{name.removeprefix('base_model.model.')}; use {directions} or less."
                )


def _train_in_float32(model: "PeftModel", dtype: "torch.dtype") -> None:
    """Cast what trains in place, so that tied weights stay tied."""
    import torch
    from peft.tuners.ia3 import IA3Layer
    from peft.utils.other import ModulesToSaveWrapper

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelError("adapter: nothing to train; check adapter.target_modules.")
    for parameter in trained:
        parameter.data = parameter.data.to(torch.float32)
    if dtype == torch.float32:
        return
    for module in list(model.modules()):
        if isinstance(module, ModulesToSaveWrapper):
            for part in module.modules_to_save["default"].modules():
                if list(part.parameters(recurse=False)):
                    part.register_forward_pre_hook(_cast_inputs_to_float32)
                    _cast_output(part, dtype)
        elif isinstance(module, IA3Layer):
            # On a quantized base peft returns float32 here, which attention refuses.
            _cast_output(module, dtype)


def _cast_inputs_to_float32(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if x.is_floating_point() else x for x in inputs)


def _cast_output(module: Any, dtype: "torch.dtype") -> None:
    def cast(module: Any, inputs: Any, output: "torch.Tensor") -> "torch.Tensor":
        return output.to(dtype)

    module.register_forward_hook(cast)
