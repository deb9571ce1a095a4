"""Several adapters become one by peft's definitions, without their base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from peftune.errors import ModelError
from peftune.export.combination import KINDS, combine
from tests.adapters.tiny_llama import load, logits
from tests.export.merging import skeleton
from tests.export.test_parity import write_adapter, write_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def weights(tmp_path: Path, base: Path) -> dict[Path, float]:
    return {
        write_adapter(tmp_path / "one", base, seed=1): 0.75,
        write_adapter(tmp_path / "two", base, seed=2): 0.5,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_peft_on_a_whole_model(
    kind: str, weights: dict[Path, float], base: Path, tmp_path: Path
) -> None:
    density = None if kind in ("linear", "cat", "svd") else 0.5
    combine(skeleton(base), weights, kind, density, tmp_path / "both")
    combined = PeftModel.from_pretrained(load(base), tmp_path / "both")
    one, two = weights
    whole: Any = PeftModel.from_pretrained(load(base), one, adapter_name="a")
    whole.load_adapter(two, adapter_name="b")
    torch.manual_seed(0)
    whole.add_weighted_adapter(["a", "b"], [*weights.values()], "both", kind, density=density)
    whole.set_adapter("both")
    torch.testing.assert_close(logits(combined), logits(whole), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(combined), logits(load(base)), atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "density", "message"),
    [
        ("mean", None, "--combination: mean is none of linear, cat"),
        ("ties", None, "--density: ties needs density"),
        ("cat", 0.5, "--density: cat reads no density"),
    ],
)
def test_what_cannot_be_combined(
    kind: str,
    density: float | None,
    message: str,
    weights: dict[Path, float],
    base: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelError, match=message):
        combine(skeleton(base), weights, kind, density, tmp_path / "both")


def test_modules_that_were_trained_in_full_are_not_dropped(base: Path, tmp_path: Path) -> None:
    whole = write_adapter(tmp_path / "whole", base, modules_to_save=("lm_head",))
    with pytest.raises(ModelError, match=r"whole: it trained modules in full"):
        combine(skeleton(base), {whole: 1.0}, "cat", None, tmp_path / "both")
