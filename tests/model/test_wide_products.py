"""bfloat16 layers of CPUs without bfloat16: as exact as a kernel for it, and only there."""

import pytest
import torch

from peftune.model.wide_products import widen


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def layer(bias: bool, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 48, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.usefixtures("without_bfloat16")
@pytest.mark.parametrize("bias", [False, True])
def test_results_are_the_exact_ones_rounded_once(bias: bool) -> None:
    narrow, exact = layer(bias), layer(bias).double()
    assert widen(torch.nn.Sequential(narrow)) == 1
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


@pytest.mark.usefixtures("without_bfloat16")
def test_other_layers_stay_as_they_are() -> None:
    trained = torch.nn.Linear(4, 4).bfloat16()
    assert widen(torch.nn.ModuleList([layer(True, torch.float32), trained])) == 0


def test_processors_that_multiply_bfloat16_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert widen(torch.nn.Sequential(layer(False))) == 0
