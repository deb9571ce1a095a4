import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peftune.adapters import attach
from peftune.adapters.lora import LoraSection
from tests.conftest import sentence_pairs


@pytest.fixture(scope="session")
def tokenizer(model_folder):
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def model(model_folder):
    """A model whose weights are large enough for each prompt to go its own way."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def adapted(model):
    """The model with a LoRA that changes what it says."""
    adapted = attach(LoraSection(method="lora", r=4), model)
    torch.manual_seed(1)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted


@pytest.fixture(scope="session")
def prompts(tokenizer):
    """Seven prompts of unequal length, the longest not last."""
    rows = sentence_pairs(7)
    return [tokenizer(row["dialogue"])["input_ids"] for row in rows]
