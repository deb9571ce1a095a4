"""What is compiled on GPUs is computed in steps elsewhere, and where nothing can be compiled."""

from typing import Any

import pytest
import torch

from peftune.model import one_kernel


@one_kernel.in_one_kernel
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


def test_nothing_is_compiled_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_kernel, "compiled", None)
    assert torch.equal(halved(torch.ones(3)), torch.full((3,), 0.5))


def test_a_machine_without_a_compiler_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(function: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    one_kernel.can_compile.cache_clear()
    monkeypatch.setattr(one_kernel, "compiled", fails)
    assert not one_kernel.can_compile() and not one_kernel.can_compile()
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "(Failed to find C compiler.)" in said
    one_kernel.can_compile.cache_clear()
