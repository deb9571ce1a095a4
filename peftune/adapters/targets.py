"""Checks that every module name in the recipe's adapter section means something in the model."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from peftune.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from peft import IA3Config, LoraConfig
    from transformers import PreTrainedModel


def check_targets(config: "LoraConfig | IA3Config", model: "PreTrainedModel") -> None:
    """Raise ModelError for a name in `target_modules` that is no linear layer, or is tied."""
    layers = linear_layers(model)
    if not layers:
        raise ModelError("adapter.target_modules: the model has no linear layer to adapt.")
    if config.target_modules == "all-linear":
        return
    for target in config.target_modules or ():
        found = [name for name in layers if names(target, name)]
        if not found:
            raise ModelError(
                f"adapter.target_modules: no linear layer named {target!r}."
                f"{did_you_mean(target, _last_parts(layers))} "
                f"The linear layers are: {', '.join(_last_parts(layers))}."
            )
        if set(found) & set(tied_layers(model)):
            raise ModelError(
                f"adapter.target_modules: {target} shares its weight with the input embedding of "
                f"this model; train it in full with adapter.modules_to_save: [{target}]."
            )


def check_parameters(config: "LoraConfig", model: "PreTrainedModel") -> None:
    """Raise ModelError for a name in `target_parameters` that is no stack of experts' weights."""
    stacks = expert_weights(model)
    for wanted in config.target_parameters or ():
        if not any(names(wanted, stack) for stack in stacks):
            known = sorted({".".join(stack.split(".")[-3:]) for stack in stacks})
            raise ModelError(
                f"adapter.target_parameters: no fused weight of experts named {wanted!r}."
                f"{did_you_mean(wanted, known)} "
                + (f"There are: {', '.join(known)}." if known else "The model has no experts.")
            )


def check_modules_to_save(config: "LoraConfig | IA3Config", model: "PreTrainedModel") -> None:
    """Raise ModelError for a name in `modules_to_save` that is unknown, ambiguous or quantized."""
    modules = [name for name, _ in model.named_modules() if name]
    for wanted in config.modules_to_save or ():
        found = [name for name in modules if names(wanted, name)]
        if not found:
            known = _last_parts(modules)
            raise ModelError(
                f"adapter.modules_to_save: no module named {wanted!r}."
                f"{did_you_mean(wanted, known)} The modules are: {', '.join(known)}."
            )
        # peft compares ends of names without looking for a dot: `norm` would also take
        # `input_layernorm`, and the user would train what was never asked for.
        others = [name for name in modules if name.endswith(wanted) and name not in found]
        if others:
            raise ModelError(
                f"adapter.modules_to_save: {wanted} would also take {_last_parts(others)[0]}; "
                f"write {_one_longer(found[0], wanted)}."
            )
        if wanted in (config.target_modules or ()):
            raise ModelError(
                f"adapter.modules_to_save: {wanted} is also in adapter.target_modules; "
                "name it in one of them."
            )
        _refuse_quantized(wanted, found, model)


def check_patterns(config: "LoraConfig", adapted: Iterable[str]) -> None:
    """Raise ModelError for a key of a pattern that matches no adapted layer: peft ignores it."""
    from peft.utils.other import get_pattern_key

    adapted = list(adapted)
    for key, patterns in (("rank", config.rank_pattern), ("alpha", config.alpha_pattern)):
        for pattern in patterns or ():
            matched = any(get_pattern_key([pattern], name) == pattern for name in adapted)
            if not matched:
                known = _last_parts(adapted)
                raise ModelError(
                    f"adapter.{key}_pattern: {pattern!r} matches no adapted layer."
                    f"{did_you_mean(pattern, known)} The adapted layers are: {', '.join(known)}."
                )


def names(short: str, module: str) -> bool:
    """Whether `short` is the module's full name or its last parts, as peft compares them."""
    return module == short or module.endswith(f".{short}")


def linear_layers(model: "PreTrainedModel") -> list[str]:
    """Full names of the layers that can be adapted, quantized ones included."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    layers = [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    ]
    outside = outside_language_model(model)
    return [name for name in layers if outside is None or re.fullmatch(outside, name) is None]


def expert_weights(model: "PreTrainedModel") -> list[str]:
    """Full names of the weights that hold all experts of a layer, (experts, out, in) or transposed."""
    from torch import nn

    return [
        f"{name}.{weight}"
        for name, module in model.named_modules()
        if not isinstance(module, nn.Conv1d)
        for weight, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]


def outside_language_model(model: "PreTrainedModel") -> str | None:
    """A pattern for the modules of a model for images or sound that text never passes.

    Adapters there would get no gradient. None for a model that reads text only.
    """
    config = model.config
    if config.is_encoder_decoder or config.get_text_config(decoder=True) is config:
        return None
    inside = (model.get_decoder(), model.get_output_embeddings())
    kept = [name for name, module in model.named_modules() if any(module is one for one in inside)]
    return rf"(?!({'|'.join(map(re.escape, kept))})(\.|$)).*"


def tied_layers(model: "PreTrainedModel") -> list[str]:
    """Full names of the input embedding and the output head where they are one weight."""
    pair = (model.get_input_embeddings(), model.get_output_embeddings())
    # A model that scores labels has no output over tokens that could be tied.
    if not model.config.tie_word_embeddings or pair[1] is None:
        return []
    return [name for name, module in model.named_modules() if any(module is one for one in pair)]


def _refuse_quantized(wanted: str, found: list[str], model: "PreTrainedModel") -> None:
    for name in found:
        for part in model.get_submodule(name).modules():
            if type(part).__module__.startswith("bitsandbytes"):
                raise ModelError(
                    f"adapter.modules_to_save: {wanted} is quantized and cannot be trained in "
                    "full; use adapter.target_modules, or quantization: null."
                )


def _one_longer(module: str, short: str) -> str:
    """The module's name by one part more than `short`."""
    return ".".join(module.split(".")[-(short.count(".") + 2) :])


def _last_parts(modules: Iterable[str]) -> list[str]:
    parts = {module.rsplit(".", 1)[-1] for module in modules}
    return sorted(part for part in parts if not part.isdigit())
