"""The last layer of a model that classifies texts by their first tokens: nothing else of it is read.

Every token is looked at there, so keys and values are computed of all. Queries, and what follows from
them, are computed of first tokens alone: the layer becomes one that attends to states of another stack,
as a decoder's does, and what that needs is there already.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from peftune.errors import ModelError
from peftune.model.documents import FIRST_TOKENS, Reading, current_reading

PARTS = ("k", "q", "v")
"""How the names begin of what computes keys, queries and values."""


def is_apart(attention: torch.nn.Module) -> bool:
    """Whether queries, keys and values of an attention that looks both ways come from three linear
    layers, with nothing done to them but split into heads."""
    names = sorted(name[0] for name, _ in attention.named_children() if name[0] in PARTS)
    code = inspect.unwrap(type(attention).forward).__code__
    turned = any("rot" in name or "norm" in name for name in code.co_names)
    causal = bool(vars(attention).get("is_causal", True))
    return names == [*PARTS] and not turned and not causal


def narrow(layer: torch.nn.Module, attention: torch.nn.Module) -> None:
    """Let the last layer compute queries of first tokens alone. Its own hooks come before."""
    layer.register_forward_pre_hook(narrowing)
    for name, part in attention.named_children():
        if name[0] in ("k", "v"):
            # Before the hook that asks whose states a part computes.
            part.register_forward_pre_hook(widening, prepend=True)
            part.register_forward_hook(keeping_apart(name[0]))


def narrowing(layer: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    """Before the layer: of the unpadded hidden states (1, tokens, size) those of first tokens."""
    reading = current_reading()
    if reading is None:
        return None
    whole = reading.documents[0]
    hidden, *others = args
    reading.documents = (whole, whole, whole.first_tokens)
    reading.stack, reading.whole = FIRST_TOKENS, hidden
    reading.narrow = hidden[:, whole.starts[:-1]]
    return reading.narrow, *others


def widening(part: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    """Before keys and values: those of every token. Raises ModelError where the layer's own input does
    not come here."""
    reading = current_reading()
    if reading is None or reading.stack != FIRST_TOKENS:
        return None
    if args[0] is not reading.narrow:
        raise _not_so(f"{type(part).__name__} does not read what its layer is given")
    return reading.whole


def keeping_apart(name: str) -> Callable[..., Any]:
    """After keys and values: the layer goes on with those of first tokens, in the shape that it expects,
    and attention takes the others from `reading`."""

    def keep(part: torch.nn.Module, args: Any, output: torch.Tensor) -> Any:
        reading = current_reading()
        if reading is None or reading.stack != FIRST_TOKENS:
            return None
        standing = output.detach()[:, reading.documents[0].starts[:-1]]
        reading.apart[name] = standing, output
        return standing

    return keep


def every_token(reading: Reading, name: str, given: torch.Tensor) -> torch.Tensor:
    """Keys or values of every token, (1, heads, tokens, size), in the place of the first tokens' that
    attention was given. Raises ModelError where these are not what the linear layer made."""
    standing, whole = reading.apart.pop(name)
    if given.data_ptr() != standing.data_ptr():
        raise _not_so("queries, keys and values are changed on their way to attention")
    return whole.unflatten(-1, (given.shape[1], -1)).transpose(1, 2)


def _not_so(reason: str) -> ModelError:
    return ModelError(
        f"model.model_name_or_path: the last layer cannot compute first tokens alone: {reason}; set "
        "train.padding_free: false, and it computes every token."
    )
