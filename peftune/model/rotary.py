"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864) of queries and keys, as one function that
knows its gradient: transformers' has a dozen steps for each, and as many backward.

Attention layers call it by a name of their module. A few numbers show whether what has the name computes
what is computed here. D size of a head.
"""

import inspect
from functools import cache, partial
from types import FunctionType, MethodType
from typing import Any

import torch

from peftune.model.one_kernel import in_one_kernel
from peftune.model.trial import tried

NAME = "apply_rotary_pos_emb"
PARAMETERS = ["q", "k", "cos", "sin", "unsqueeze_dim"]
Pair = tuple[torch.Tensor, torch.Tensor]


def serve(model: torch.nn.Module) -> int:
    """Let the attention layers of a model rotate here; their number."""
    count = 0
    for module in model.modules():
        forward: Any = type(module).forward
        if type(forward) is not FunctionType or NAME not in forward.__code__.co_names:
            continue
        if "forward" in vars(module) or not is_known(forward.__globals__.get(NAME)):
            continue
        # On the instance: other models of its class keep their code.
        vars(module)["forward"] = MethodType(rotating_here(forward), module)
        count += 1
    return count


@cache
def rotating_here(forward: FunctionType) -> FunctionType:
    """The same code, for which the name means `rotate`."""
    names = {**forward.__globals__, NAME: partial(rotate, forward.__globals__[NAME])}
    made = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


@cache
def is_known(function: Any) -> bool:
    """Whether a function of queries, keys, cosines and sines computes what `rotate` does: turns whole
    heads by pairs of halves."""
    if type(function) is not FunctionType:
        return False
    if [*inspect.signature(function).parameters] != PARAMETERS:
        return False
    return bool(tried(partial(_turns_alike, function)))


def _turns_alike(function: Any) -> bool:
    numbers = torch.linspace(-2.0, 3.0, 96)
    q, k = numbers.view(2, 2, 3, 8), numbers[:48].view(2, 1, 3, 8)
    cos, sin = numbers[:48].view(2, 3, 8).cos(), numbers[48:].view(2, 3, 8).sin()
    pairs = zip(function(q, k, cos, sin), rotate(None, q, k, cos, sin), strict=True)
    return all(torch.equal(said, ours) for said, ours in pairs)


def rotate(
    known: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    unsqueeze_dim: int = 1,
) -> Pair:
    """Queries and keys (rows, heads, tokens, D), turned by the angles of their places (rows, tokens,
    D); heads stand at `unsqueeze_dim`. What turns only a part of a head is left to the function that is
    `known`."""
    if cos.shape[-1] != q.shape[-1]:
        left: Pair = known(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        return left
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    made: Pair = _Rotation.apply(q, k, cos, sin)
    return made


@in_one_kernel
def turned(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Pair:
    return q * cos + _quarter(q) * sin, k * cos + _quarter(k) * sin


@in_one_kernel
def turned_back(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Pair:
    return q * cos - _quarter(q * sin), k * cos - _quarter(k * sin)


def _quarter(x: torch.Tensor) -> torch.Tensor:
    """Each pair of numbers turned by 90 degrees; turned back, it is the negative."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> Pair:
        ctx.save_for_backward(cos, sin)
        return turned(q, k, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad_q: torch.Tensor, grad_k: torch.Tensor) -> tuple[Any, ...]:
        return *turned_back(grad_q, grad_k, *ctx.saved_tensors), None, None
