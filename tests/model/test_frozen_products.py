"""Frozen bfloat16 layers on CPUs, with and without units for it: exact but for one rounding."""

import pytest
import torch

from peftune.model.frozen_products import common_rows, fewer_common_rows, product, serve


@pytest.fixture(params=["AVX2", "AVX512"], autouse=True)
def capability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)


def layer(bias: bool, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 48, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
def test_results_are_the_exact_ones_rounded_once(bias: bool) -> None:
    narrow, exact = layer(bias), layer(bias).double()
    assert serve(torch.nn.Sequential(narrow)) == 1
    x = torch.randn(3, 5, 64).bfloat16().requires_grad_()
    wanted = x.detach().double().requires_grad_()
    narrow(x).square().sum().backward()
    expected = exact(wanted)
    found = narrow(x)
    # Half a unit in the last of bfloat16's 8 bits, and the rounding of float32.
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-6)
    grad = torch.autograd.grad(found, x, torch.ones_like(found))[0]
    exact_grad = torch.autograd.grad(expected, wanted, torch.ones_like(expected))[0]
    assert grad.dtype is torch.bfloat16
    torch.testing.assert_close(grad.double(), exact_grad, rtol=2**-8, atol=1e-5)


def test_other_layers_stay_as_they_are() -> None:
    trained = torch.nn.Linear(4, 4).bfloat16()
    assert serve(torch.nn.ModuleList([layer(True, torch.float32), trained])) == 0


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 100, 1000, 1024, 1025, 5000])
def test_numbers_of_rows_are_few_and_near(tokens: int) -> None:
    more, fewer = common_rows(tokens), fewer_common_rows(tokens)
    assert tokens <= more < max(1.25 * tokens + 1, tokens + 16)
    assert more == common_rows(more)
    assert max(1, 0.75 * tokens - 16) <= fewer <= tokens
    assert fewer == tokens or fewer == common_rows(fewer)


def test_between_two_powers_of_two_there_are_four_numbers_of_rows() -> None:
    assert {common_rows(tokens) for tokens in range(513, 1025)} == {640, 768, 896, 1024}


@pytest.mark.parametrize("tokens", [1, 16, 37, 129])
def test_empty_rows_change_nothing(tokens: int) -> None:
    weight, bias = torch.randn(48, 64).bfloat16(), torch.randn(48).bfloat16()
    x = torch.randn(tokens, 64).bfloat16()
    expected = x.double() @ weight.double().T + bias.double()
    found = product(x, weight, bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)
