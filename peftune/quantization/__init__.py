"""Extension point: one file for each way to hold frozen weights in fewer bits."""

import copy
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from peftune.quantization import bnb4bit, bnb8bit
from peftune.quantization.bnb4bit import Bnb4bitSection
from peftune.quantization.bnb8bit import Bnb8bitSection

if TYPE_CHECKING:
    import torch
    from torch import Tensor

QuantizationSection = Annotated[Bnb4bitSection | Bnb8bitSection, Field(discriminator="method")]
BACKENDS = {"bnb-nf4": bnb4bit, "bnb-fp4": bnb4bit, "bnb-int8": bnb8bit}
LAYERS = {"Linear4bit": bnb4bit, "Linear8bitLt": bnb8bit}
"""Which of them a layer belongs to, by its class."""


class Dequantizer:
    """What the bits of a parameter stand for, in float32, by its name and its plain weight.

    `skeleton` is a model on the meta device whose layers become quantized ones, still without weights.
    Parameters that are not quantized come back as they are.
    """

    def __init__(self, skeleton: Any, quantization_config: Any) -> None:
        from transformers.quantizers import AutoHfQuantizer

        self.skeleton = skeleton
        self.quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
        self.quantizer.preprocess_model(model=skeleton, device_map={"": "cpu"})
        self.described: str = quantization_config.to_json_string()
        """The configuration, as text."""

    def __call__(self, name: str, weight: "Tensor") -> "Tensor":
        if not self.quantizer.param_needs_quantization(self.skeleton, name):
            return weight
        made = self.quantizer.get_quantize_ops().convert(
            {name: weight}, full_layer_name=name, model=self.skeleton
        )
        layer = copy.copy(self.skeleton.get_submodule(name.rpartition(".")[0]))
        layer._parameters = {**layer._parameters, "weight": made[name]}
        plain = LAYERS[type(layer).__name__].dequantize(layer)
        return as_stored(layer, plain)


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


def as_stored(layer: Any, weight: "Tensor") -> "Tensor":
    """A weight (out, in) as the class that a layer replaces holds its own."""
    from transformers.pytorch_utils import Conv1D

    return weight.T.contiguous() if layer.source_cls is Conv1D else weight
