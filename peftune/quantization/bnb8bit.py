"""8-bit weights by bitsandbytes (LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from peftune.section import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Bnb8bitSection(Section):
    """Frozen linear layers in 8 bits with one scale for each output."""

    method: Literal["bnb-int8"]
    """LLM.int8()."""


def load_kwargs(
    section: Bnb8bitSection, dtype: str, sharded: bool, whole: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments for `from_pretrained`; `whole` names modules that are to be trained in full."""
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_skip_modules=list(whole) or None
        )
    }


def prepare(model: "nn.Module") -> None:
    """Make a loaded model compute the same in every mode. Call it before the first forward pass.

    On the CPU bitsandbytes trains with the dequantized weight, but evaluates with activations
    rounded to 8 bits: validation would measure another function than training, and a merge would
    match neither. Both use the dequantized weight here. On a GPU both modes round activations.

    A forward pass casts the bias to its input's dtype in place, so under autocast the frozen bias
    loses bits on the way; the input is cast to the bias's dtype instead.
    """
    from peftune.quantization.int8_state import DequantizingState, cast_to_bias_dtype

    for layer in quantized_layers(model).values():
        layer.state = DequantizingState.like(layer.state)
        if layer.bias is not None:
            layer.register_forward_pre_hook(cast_to_bias_dtype)


def quantized_layers(model: "nn.Module") -> "dict[str, Any]":
    """The 8-bit layers by full name."""
    from bitsandbytes.nn import Linear8bitLt

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear8bitLt)}


def scales(layer: Any) -> "dict[str, Tensor]":
    """The floating numbers beside the integers; NaN or infinite weights end up in them."""
    # The first forward pass moves them from the weight to the state.
    return {"SCB": layer.weight.SCB if layer.state.SCB is None else layer.state.SCB}


def dequantize(layer: Any) -> "Tensor":
    """The weight (out, in) in float32: 8-bit integer times scale/127, as float32 compute uses."""
    return layer.weight.data.float() * (scales(layer)["SCB"].unsqueeze(1) * (1.0 / 127.0))


def training_weight(layer: Any, dtype: "torch.dtype") -> "Tensor":
    """What a layer multiplies inputs of `dtype` with on the CPU, (out, in)."""
    return dequantize(layer).to(dtype if layer.bias is None else layer.bias.dtype)
