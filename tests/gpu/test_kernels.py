"""Kernels that only GPUs have give the numbers of the same functions in steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peftune.model import rms_norm, rotary, unequal_rows
from peftune.model.one_kernel import can_compile
from peftune.training import gated_unit, split_products
from tests.gpu.gpus import needs

pytestmark = needs(1)
TOKENS = (64, 72, 80)
"""The second number of tokens is compiled for any, which the third then shows."""


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, generator=draw)


def heads(tokens: int, count: int) -> torch.Tensor:
    return numbers(1, tokens, count, 64, seed=count).transpose(1, 2)


def angles(tokens: int) -> torch.Tensor:
    return numbers(1, 1, tokens, 64)


COMPILED: dict[str, tuple[Any, Callable[[int], tuple[Any, ...]]]] = {
    "norm": (
        rms_norm.computed,
        lambda t: (numbers(1, t, 256), numbers(256), "scaled by more than one", 1e-5),
    ),
    "gate": (gated_unit.by_silu, lambda t: (numbers(1, t, 256), numbers(1, t, 256, seed=1))),
    "gate's gradients": (
        gated_unit.tanh_gelu_gradients,
        lambda t: tuple(numbers(1, t, 256, seed=seed) for seed in range(3)),
    ),
    "rotation": (
        rotary.turned,
        lambda t: (heads(t, 4), heads(t, 2), angles(t).cos(), angles(t).sin()),
    ),
    "factors": (
        split_products.split_factors,
        lambda t: ([numbers(8, t).float() / 3] * 2, [numbers(t, 8).float() / 3] * 2),
    ),
    "parts": (
        split_products.sum_of_parts,
        lambda t: (numbers(t, 2 * 3 * 8).float() / 3, [2.0, 0.5]),
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_gives_the_numbers_of_its_steps(name: str) -> None:
    assert can_compile()
    function, arguments = COMPILED[name]
    for tokens in TOKENS:
        given = arguments(tokens)
        said, steps = function(*given), function.__wrapped__(*given)
        torch.testing.assert_close(said, steps, rtol=0.0, atol=0.0 if "norm" not in name else 0.04)


def test_the_norm_of_a_kernel_is_that_of_steps() -> None:
    x, weight, grad = numbers(1, 70, 256), numbers(256, seed=1), numbers(1, 70, 256, seed=2)
    made, inverse = rms_norm.compute(x, weight, "scaled", 1e-5)
    steps, by_steps = rms_norm.computed.__wrapped__(x, weight, "scaled", 1e-5)  # type: ignore[attr-defined]
    torch.testing.assert_close(made, steps)
    torch.testing.assert_close(inverse, by_steps)
    slope = rms_norm.gradient(grad, x, inverse, weight, "scaled")
    by_hand = rms_norm.computed_gradient.__wrapped__(grad, x, inverse, weight, "scaled")  # type: ignore[attr-defined]
    torch.testing.assert_close(slope, by_hand)


def test_products_in_parts_are_those_of_float32() -> None:
    x, low, high = numbers(100, 256), numbers(16, 256).float() / 3, numbers(512, 16).float() / 7
    low_parts, (high_parts,) = split_products.split_factors([low], [high])
    found = split_products.wide_product(x, low_parts.T)
    inner = split_products.sum_of_parts(found, [2.0])
    exact = 2.0 * x.double() @ low.double().T
    assert distance(inner[:, 16:].float().view(100, 2, 16).sum(1), exact) < 2e-5
    assert distance(inner @ high_parts, exact @ high.double().T) < 4e-3
    grad = numbers(100, 512, seed=3)
    by_high = split_products.gradient_by_high(inner, grad)
    assert distance(by_high, grad.double().T @ exact) < 2e-5
    (by_low,) = split_products.gradient_by_low(inner, x, 1)
    assert distance(by_low, exact.T @ x.double()) < 2e-5


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_heads_share_keys() -> None:
    assert unequal_rows.shares_keys()
