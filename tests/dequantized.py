"""Quantized models as plain ones in float32: what their training and their merges are compared with."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftune.quantization import BACKENDS, as_stored


def dequantize_model(model: Any) -> None:
    """Replace each quantized layer of a transformers model by a plain float32 one, in place.

    The model must have one.
    """
    found = False
    for backend in set(BACKENDS.values()):
        for name, layer in backend.quantized_layers(model).items():
            model.set_submodule(name, _plain_layer(layer, backend.dequantize(layer)))
            found = True
    if not found:
        raise ValueError("no layer is quantized")
    model.hf_quantizer.remove_quantization_config(model)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False


def _plain_layer(layer: nn.Linear, weight: torch.Tensor) -> nn.Module:
    """`weight` is (out, in). GPT-2 and its kin hold theirs transposed, in a class of their own."""
    if layer.source_cls is Conv1D:
        plain: nn.Module = Conv1D(layer.out_features, layer.in_features)
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(as_stored(layer, weight), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return plain
