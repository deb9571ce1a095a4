"""A model, and a run with its adapter, as others hand them on, and a folder that is not theirs."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import summary_tree, write_recipe


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no model, adapter or checkpoint may reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.json").write_text('{"secret": 1}')
    (folder / "tokenizer.9.json").write_text("{}")
    (folder / "secret.safetensors").write_bytes(b"secret")
    return folder


@pytest.fixture
def base(model_folder: Path, tmp_path: Path) -> Path:
    """A good model, which a test makes bad."""
    return Path(shutil.copytree(model_folder, tmp_path / "home" / "base"))


@pytest.fixture(scope="session")
def trained(
    model_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run: recipe, tokenizer, and an adapter that is not zero."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from peftune.adapters import attach
    from peftune.adapters.lora import LoraSection
    from peftune.export.adapter import save_adapter

    folder = tmp_path_factory.mktemp("trained")
    write_recipe(folder, summary_tree(model_folder, data_folder))
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    adapted = attach(LoraSection(method="lora", r=4), model)
    tensors = {n: p.detach() for n, p in adapted.named_parameters() if p.requires_grad}
    tensors = {name: torch.full_like(tensor, 0.01) for name, tensor in tensors.items()}
    save_adapter(folder, adapted.peft_config["default"], tensors, str(model_folder))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A good run, which a test makes bad."""
    return Path(shutil.copytree(trained, tmp_path / "home" / "run"))
