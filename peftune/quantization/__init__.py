"""Extension point: one file for each way to hold frozen weights in fewer bits."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from peftune.errors import ModelError
from peftune.quantization import bnb4bit, bnb8bit
from peftune.quantization.bnb4bit import Bnb4bitSection
from peftune.quantization.bnb8bit import Bnb8bitSection

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

QuantizationSection = Annotated[Bnb4bitSection | Bnb8bitSection, Field(discriminator="method")]
BACKENDS = {"bnb-nf4": bnb4bit, "bnb-fp4": bnb4bit, "bnb-int8": bnb8bit}
LAYERS = {"Linear4bit": bnb4bit, "Linear8bitLt": bnb8bit}
"""Which of them a layer belongs to, by its class."""


def dequantize_model(model: Any) -> None:
    """Replace each quantized layer of a transformers model by a plain float32 one, in place.

    Raises ModelError when the model has no quantized layer.
    """
    found = False
    for backend in set(BACKENDS.values()):
        for name, layer in backend.quantized_layers(model).items():
            model.set_submodule(name, _plain_layer(layer, backend.dequantize(layer)))
            found = True
    if not found:
        raise ModelError("export.merge_base: dequantized needs a quantized base; use original.")
    model.hf_quantizer.remove_quantization_config(model)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False


def training_weight(layer: Any, dtype: "torch.dtype") -> "Tensor":
    """What a quantized layer multiplies inputs of `dtype` with, (out, in), where it dequantizes."""
    return LAYERS[type(layer).__name__].training_weight(layer, dtype)


def quantization_scales(model: Any) -> "dict[str, Tensor]":
    """By name, the floating numbers that belong to quantized weights; empty for a plain model."""
    return {
        f"{name}.{part}": tensor
        for backend in set(BACKENDS.values())
        for name, layer in backend.quantized_layers(model).items()
        for part, tensor in backend.scales(layer).items()
    }


def _plain_layer(layer: "nn.Linear", weight: "Tensor") -> "nn.Module":
    """`weight` is (out, in). GPT-2 and its kin hold theirs transposed, in a class of their own."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if layer.source_cls is Conv1D:
        plain: nn.Module = Conv1D(layer.out_features, layer.in_features)
        weight = weight.T.contiguous()
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return plain
