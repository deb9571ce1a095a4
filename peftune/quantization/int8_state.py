"""Parts of the guard in `bnb8bit.prepare` that need bitsandbytes to be defined."""

from typing import Any, Self

import torch
from bitsandbytes import MatmulLtState
from bitsandbytes.nn import Linear8bitLt


class DequantizingState(MatmulLtState):
    """State of an 8-bit layer that always asks for the kernel of training and keeps its scales.

    `Linear8bitLt.forward` writes its own mode into `is_training` before each product; with frozen
    weights that flag does nothing but choose the CPU kernel. peft's DoRA re-wraps the weight on the
    CPU in each forward pass, without its scales, and the next pass would copy that loss into here.
    """

    @classmethod
    def like(cls, state: MatmulLtState) -> Self:
        """A state with the values of `state`, asking for training."""
        new = cls()
        new.__dict__.update(state.__dict__)
        new.__dict__.pop("is_training", None)
        return new

    def __setattr__(self, name: str, value: Any) -> None:
        loses_scales = name == "SCB" and value is None
        if name != "is_training" and not loses_scales:
            super().__setattr__(name, value)


def cast_to_bias_dtype(layer: Linear8bitLt, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Forward pre-hook: give the layer an input of its bias's dtype."""
    return (inputs[0].to(layer.bias.dtype),)
