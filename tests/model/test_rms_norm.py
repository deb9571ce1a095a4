"""Norms that know their gradient: as their own classes compute them, and autograd after those."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from peftune.model.rms_norm import serve

CLASSES = [LlamaRMSNorm, T5LayerNorm, Gemma2RMSNorm]
SIZE = 48


def norm_of(norm_class: Any, dtype: torch.dtype) -> torch.nn.Module:
    norm: torch.nn.Module = norm_class(SIZE, 1.0e-5)
    norm.weight.data.uniform_(-1.5, 1.5)
    return norm.to(dtype).requires_grad_(False)


def numbers(norm: torch.nn.Module, x: torch.Tensor, slope: torch.Tensor) -> list[torch.Tensor]:
    """What it makes of x, and the gradient that x gets."""
    made = norm(x)
    return [made, *torch.autograd.grad(made, x, slope)]


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of ordinary size, very small ones and zeros, and a gradient by what comes of them."""
    sizes = torch.tensor([1.0, 100.0, 1.0e-3, 1.0e-5, 0.0])[:, None]
    x = (torch.randn(2, 5, SIZE) * sizes).to(dtype).requires_grad_()
    return x, torch.randn(2, 5, SIZE).to(dtype)


@pytest.mark.parametrize("norm_class", CLASSES)
def test_in_float32_the_numbers_are_those_of_float64(norm_class: Any) -> None:
    norm, (x, slope) = norm_of(norm_class, torch.float32), drawn(torch.float32)
    scale = norm.weight.double() + (norm_class is Gemma2RMSNorm)
    wide = x.detach().double().requires_grad_()
    exact = wide / (wide.pow(2).mean(-1, keepdim=True) + 1.0e-5).sqrt() * scale
    expected = [exact, *torch.autograd.grad(exact, wide, slope.double())]
    plain = numbers(norm, x, slope)
    assert serve(norm) == 1
    for found, old, one in zip(numbers(norm, x, slope), plain, expected, strict=True):
        bound = 2.0e-6 * one.abs().amax(dim=-1, keepdim=True)
        assert ((found - one).abs() <= bound).all()
        assert ((old - one).abs() <= bound).all()


@pytest.mark.parametrize("norm_class", CLASSES)
def test_in_bfloat16_it_rounds_where_the_class_does(norm_class: Any) -> None:
    norm, (x, slope) = norm_of(norm_class, torch.bfloat16), drawn(torch.bfloat16)
    plain = numbers(norm, x, slope)
    assert serve(norm) == 1
    made, gradient = numbers(norm, x, slope)
    # A number that lies between two others may be rounded to either.
    assert (made == plain[0]).float().mean() > 0.99
    torch.testing.assert_close(made, plain[0], rtol=2**-7, atol=0.0)
    bound = 2**-6 * plain[1].abs().amax(dim=-1, keepdim=True)
    assert ((gradient - plain[1]).abs() <= bound).all()


class Gated(LlamaRMSNorm):
    """Takes more than tokens."""

    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) if gate is None else super().forward(x * gate)


class Centred(LlamaRMSNorm):
    """Computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(-1, keepdim=True))


class Configured(LlamaRMSNorm):
    """Is made of something else."""

    def __init__(self, config: Any, layer_idx: int = 0) -> None:
        super().__init__(config.hidden_size)


@pytest.mark.parametrize(
    "norm",
    [
        Configured(SimpleNamespace(hidden_size=8)).requires_grad_(False),
        LlamaRMSNorm(8),
        torch.nn.LayerNorm(8).requires_grad_(False),
        torch.nn.LayerNorm(8, bias=False).requires_grad_(False),
        Gated(8).requires_grad_(False),
        Centred(8).requires_grad_(False),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_what_is_learnt_or_something_else_keeps_its_code(norm: torch.nn.Module) -> None:
    assert serve(norm) == 0
    assert "forward" not in vars(norm)


def test_other_number_formats_keep_it_too() -> None:
    norm, (x, slope) = norm_of(LlamaRMSNorm, torch.float64), drawn(torch.float64)
    plain = numbers(norm, x, slope)
    assert serve(norm) == 1
    assert all(map(torch.equal, numbers(norm, x, slope), plain))
