"""4-bit weights by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from peftune.errors import LaunchError
from peftune.section import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Bnb4bitSection(Section):
    """Frozen linear layers in 4 bits; embeddings and output head keep the model's dtype."""

    method: Literal["bnb-nf4", "bnb-fp4"]
    """Code book: NF4 has normally distributed levels and is the better one; FP4 is a tiny float."""

    double_quant: bool = True
    """Quantize the scales too, which saves 0.4 bits for each weight."""

    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the matrix products; without it `model.dtype`."""

    storage_dtype: Literal["uint8", "float32", "bfloat16", "float16"] | None = None
    """Tensor type the packed bits are kept in, which changes no number. Without it the engine
    decides: uint8, or `model.dtype` where the weights are sharded (FSDP2, ZeRO-3)."""


def load_kwargs(
    section: Bnb4bitSection, dtype: str, sharded: bool, whole: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments for `from_pretrained`. `sharded`: the engine splits the frozen weights; `whole` names
    modules that are to be trained in full and so cannot be quantized.

    Raises LaunchError for uint8 storage in a sharded run: those weights would stay whole on
    every device, with no more than a warning.
    """
    from transformers import BitsAndBytesConfig

    if sharded and section.storage_dtype == "uint8":
        raise LaunchError(
            "quantization.storage_dtype: uint8 weights cannot be sharded; leave the key out, or "
            f"set {dtype}."
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.method.removeprefix("bnb-"),
        bnb_4bit_use_double_quant=section.double_quant,
        bnb_4bit_compute_dtype=section.compute_dtype or dtype,
        llm_int8_skip_modules=list(whole) or None,
        bnb_4bit_quant_storage=section.storage_dtype or (dtype if sharded else "uint8"),
    )
    return {"quantization_config": config}


def prepare(model: "nn.Module") -> None:
    """Make a loaded model compute the same in every mode. Call it before the first forward pass.

    On CPUs with AVX-512 BF16, `Linear4bit.forward` in eval mode rewrites its weight for an
    inference kernel, for good. Later training steps then multiply in bfloat16 and get no gradient
    through the layer at all (the kernel has no backward pass), and a sharding engine restores bytes
    that no longer fit the state. The kernel also fails for layers with a bias and for widths that
    are no multiple of 64, and may come from a Hub. So it is switched off.

    A forward pass casts the bias to the compute dtype in place; doing it here keeps the frozen
    weights constant from now on. Embeddings, norms and head keep their dtype (peft's
    `prepare_model_for_kbit_training` would double their memory; the loss is float32 anyway).
    """
    for layer in quantized_layers(model).values():
        rewritten = vars(layer.weight.quant_state).get("packing_format_for_cpu", False)
        assert not rewritten, "prepare comes before the first forward pass"
        layer.support_avx512bf16_for_cpu = False
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)


def quantized_layers(model: "nn.Module") -> "dict[str, Any]":
    """The 4-bit layers by full name."""
    from bitsandbytes.nn import Linear4bit

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear4bit)}


def scales(layer: Any) -> "dict[str, Tensor]":
    """The floating numbers beside the packed bits; NaN or infinite weights end up in them."""
    state = layer.weight.quant_state if layer.quant_state is None else layer.quant_state
    if state.nested:
        return {"offset": state.offset, "absmax": state.state2.absmax}
    return {"absmax": state.absmax}


def dequantize(layer: Any, dtype: "torch.dtype | None" = None) -> "Tensor":
    """The weight (out, in), code book value times block scale, in `dtype` or in float32."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    # Where engines have put other tensors in the place of the weight, the layer itself has the state.
    state = copy.copy(layer.weight.quant_state if layer.quant_state is None else layer.quant_state)
    state.dtype = dtype or torch.float32
    return dequantize_4bit(layer.weight.data, state)


def training_weight(layer: Any, dtype: "torch.dtype") -> "Tensor":
    """What a layer multiplies inputs of `dtype` with, (out, in)."""
    return dequantize(layer, layer.compute_dtype or dtype)
