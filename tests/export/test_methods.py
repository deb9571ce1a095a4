"""A merge has the bits that peft's own has, for every method, on every shipped architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config
from transformers.models.auto import modeling_auto

from peftune.adapters import AdapterSection, attach, saved_form
from peftune.export.adapter import save_adapter
from peftune.model.head import model_class
from tests.adapters.test_matrix import DECOMPOSED, METHODS
from tests.adapters.tiny_llama import load, trained_tensors
from tests.export.merging import merge_folders
from tests.recipes.conftest import toys as toys
from tests.recipes.toy_models import TOYS

DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.thorough)]
CLASSES = {
    "decoder": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "encoder": ("AutoModelForMaskedLM", None),
    "encoder-decoder": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
}
"""transformers' class and peft's name of the task."""
EVERY = METHODS | DECOMPOSED


def write_adapter(
    folder: Path, method: dict[str, Any], model: Any, task_type: str | None = "CAUSAL_LM"
) -> Path:
    """An adapter whose numbers have all moved from where they began."""
    chosen: TypeAdapter[Any] = TypeAdapter(AdapterSection)
    section = chosen.validate_python(method)
    torch.manual_seed(0)
    adapted = attach(section, model, task_type)
    initial = trained_tensors(adapted)
    trained = {name: one + 0.05 * torch.randn(one.shape) for name, one in initial.items()}
    tensors, config = saved_form(section, initial, trained, adapted.peft_config["default"])
    save_adapter(folder, config, tensors, "some/base")
    return folder


def check_bits(adapter: Path, base: Path, out: Path, dtype: torch.dtype, auto_class: Any) -> None:
    """Both round the base to `dtype` first, add in float32, and round once more."""
    merge_folders(adapter, base, out, dtype, auto_class=auto_class)
    found = auto_class.from_pretrained(out, dtype=dtype).state_dict()
    whole = auto_class.from_pretrained(base, dtype=dtype).float()
    merged = PeftModel.from_pretrained(whole, adapter).merge_and_unload()
    expected = merged.state_dict()
    assert found.keys() == expected.keys()
    other = [name for name, one in expected.items() if not torch.equal(found[name], one.to(dtype))]
    assert other == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", EVERY)
def test_every_method(method: str, dtype: torch.dtype, llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", EVERY[method], load(llama))
    check_bits(adapter, llama, tmp_path / "m", dtype, AutoModelForCausalLM)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_weights_that_are_held_transposed(method: str, tmp_path: Path) -> None:
    """GPT-2's layers have (in, out) matrices."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", EVERY[method], model)
    check_bits(adapter, tmp_path / "base", tmp_path / "m", torch.float32, AutoModelForCausalLM)


@pytest.mark.parametrize("name", TOYS)
def test_every_architecture(name: str, toys: Callable[[str], Path], tmp_path: Path) -> None:
    base = toys(name)
    class_name, task_type = CLASSES[model_class(AutoConfig.from_pretrained(base))]
    auto_class = modeling_auto.__dict__[class_name]
    model = auto_class.from_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", METHODS["lora"], model, task_type)
    check_bits(adapter, base, tmp_path / "m", torch.float32, auto_class)
