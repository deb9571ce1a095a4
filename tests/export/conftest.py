import pytest
import torch

from peftune.adapters import attach
from peftune.adapters.lora import LoraSection
from peftune.export.adapter import save_adapter
from tests.adapters.tiny_llama import load, trained_tensors, write_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tied_llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("tied_llama"), tied=True)


@pytest.fixture
def adapted(llama):
    """A model with a LoRA whose B is not zero."""
    return make_adapted(llama)


@pytest.fixture
def adapter_folder(adapted, tmp_path):
    """That LoRA as files."""
    folder = tmp_path / "adapter"
    config = adapted.peft_config["default"]
    save_adapter(folder, config, trained_tensors(adapted), base_model_name_or_path="tiny/llama")
    return folder


def make_adapted(base_folder, **keys):
    torch.manual_seed(0)
    adapted = attach(LoraSection(method="lora", r=4, **keys), load(base_folder))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted
