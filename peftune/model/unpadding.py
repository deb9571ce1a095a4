"""Computes the layers of a model without padding: its rows one after another, each for itself.

Embeddings, position tables, poolers and heads see the padded batch that they were written for. What
goes into the first layer is unpadded and what comes out of the last one is padded again.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from peftune.model.attention import UNPADDED, register
from peftune.model.documents import FIRST_TOKENS, Reading, current_reading
from peftune.model.first_tokens import narrow

INTERFACE = "ALL_ATTENTION_FUNCTIONS"
"""What code of transformers calls whose attention can be replaced."""


@dataclass(frozen=True)
class Stack:
    """Layers that follow each other."""

    layers: tuple[torch.nn.Module, ...]
    index: int
    """Which documents of a reading they compute."""


def unpad(model: PreTrainedModel, first_tokens: bool = False) -> None:
    """Let `model`, with its adapter, leave out padding inside `reading_of`, if it can be served.

    It can where every layer is of attention that asks transformers for its implementation.
    `first_tokens`: the last layer computes nothing else, as `may_narrow` allows.
    """
    stacks = stacks_of(model)
    if not stacks or model.config._attn_implementation != "sdpa":
        return
    register()
    model.set_attn_implementation(UNPADDED)
    for stack in stacks:
        for place, layer in enumerate(stack.layers):
            layer.register_forward_pre_hook(entering(stack, place == 0), with_kwargs=True)
            for attention in attentions(layer):
                attention.register_forward_pre_hook(attending, with_kwargs=True)
                for part in attention.children():
                    part.register_forward_pre_hook(turning_to_states)
                    part.register_forward_hook(turning_back, always_call=True)
        if first_tokens:
            narrow(stack.layers[-1], *attentions(stack.layers[-1]))
        stack.layers[-1].register_forward_hook(leaving, always_call=True)


def is_unpadded(model: torch.nn.Module) -> bool:
    """Whether `unpad` could serve it."""
    assert isinstance(model, PreTrainedModel)
    return bool(model.config._attn_implementation == UNPADDED)


def stacks_of(model: PreTrainedModel) -> list[Stack]:
    """The model's layers as text passes them, encoder first; none where they cannot be told."""
    decodes = model.config.is_encoder_decoder
    parts = [model.get_encoder(), model.get_decoder()] if decodes else [text_part(model)]
    found = [layers_of(part) for part in parts]
    if not all(found) or not all(attentions(layer) for layers in found for layer in layers):
        return []
    return [Stack(layers, index) for index, layers in enumerate(found)]


def text_part(model: PreTrainedModel) -> torch.nn.Module:
    """What text passes of a model that may also see."""
    reads_text_only = model.config.get_text_config(decoder=True) is model.config
    return model if reads_text_only else model.get_decoder()


def layers_of(part: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """The only list of layers in `part`, or nothing."""
    lists = [
        tuple(module)
        for module in part.modules()
        if isinstance(module, torch.nn.ModuleList)
        and len(module)
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    return lists[0] if len(lists) == 1 else ()


def attentions(layer: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules of a layer that ask transformers for their attention."""
    return [
        module
        for module in layer.modules()
        if INTERFACE in inspect.unwrap(type(module).forward).__code__.co_names
    ]


def entering(stack: Stack, is_first: bool) -> Callable[..., Any]:
    """Before a layer: what it gets is unpadded."""
    names = [*inspect.signature(stack.layers[0].forward).parameters]

    def enter(layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reading = current_reading()
        if reading is None:
            return None
        reading.stack = stack.index
        hidden, *others = args
        hidden = reading.documents[stack.index].unpadded(hidden) if is_first else hidden
        positional = [one(reading, *pair) for pair in zip(names[1:], others, strict=False)]
        return (hidden, *positional), {
            name: one(reading, name, value) for name, value in kwargs.items()
        }

    def one(reading: Reading, name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(one(reading, name, part) for part in value)
        if not isinstance(value, torch.Tensor) or value.dim() not in (2, 3) or "mask" in name:
            return value
        index = 0 if name == "encoder_hidden_states" else stack.index
        documents = reading.documents[index]
        if value.shape[0] not in (1, len(documents.lengths)) or value.shape[1] != documents.width:
            return value
        if id(value) not in reading.unpadded:
            reading.unpadded[id(value)] = value, documents.unpadded(value)
        return reading.unpadded[id(value)][1]

    return enter


def leaving(layer: torch.nn.Module, args: Any, output: Any) -> Any:
    """After the last layer: what comes out of it is padded."""
    reading = current_reading()
    if reading is None or reading.own is None:
        return None
    documents, reading.stack = reading.own, None
    if isinstance(output, tuple):
        return documents.padded(output[0]), *output[1:]
    return None if output is None else documents.padded(output)


def attending(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Before attention: what it reads of the encoder, and relative positions of one row for all."""
    reading = current_reading()
    if reading is None or reading.own is None:
        return None
    narrow = reading.stack == FIRST_TOKENS
    reading.states = reading.whole if narrow else kwargs.get("key_value_states")
    if kwargs.get("position_bias", True) is not None:
        return None
    if reading.states is not None or not module.has_relative_attention_bias:
        # T5 would add zeros for each pair of tokens.
        bias = torch.zeros(1, 1, 1, 1, device=reading.own.places.device)
    else:
        compute_bias: Any = module.compute_bias
        bias = compute_bias(reading.own.width, reading.own.width)
    return args, {**kwargs, "position_bias": bias}


def turning_to_states(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    """Before a part of attention: whether it computes something of the encoder's rows."""
    reading = current_reading()
    if reading is not None and reading.states is not None:
        reading.reads_states = args[0] is reading.states


def turning_back(module: torch.nn.Module, args: Any, output: Any) -> None:
    reading = current_reading()
    if reading is not None:
        reading.reads_states = False
