"""Two-layer models, 64 wide, with biases, written to a folder as a checkpoint would be."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from peftune.quantization import BACKENDS

VOCABULARY = 96


def write_llama(folder: Path, tied: bool = False, biased: bool = True) -> Path:
    """A random model whose weights are large enough for its layers to matter."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=biased,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


def load(folder: Path, quantization=None, dtype="float32", sharded=False) -> PreTrainedModel:
    """The model as the pipeline holds it: quantized and guarded when a section is given."""
    kwargs = {}
    if quantization is not None:
        kwargs = BACKENDS[quantization.method].load_kwargs(quantization, dtype, sharded)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **kwargs)
    if quantization is not None:
        BACKENDS[quantization.method].prepare(model)
    return model


def batch() -> torch.Tensor:
    """Token ids (4, 12), the same on every call."""
    return torch.randint(VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(1))


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits (4, 12, vocabulary) of the batch in eval mode, float32."""
    model.eval()
    with torch.no_grad():
        return model(batch(), use_cache=False).logits.float()


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """One step on the batch; its loss and gradient norm."""
    model.train()
    optimizer.zero_grad()
    loss = model(batch(), labels=batch(), use_cache=False).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    optimizer.step()
    return loss.item(), norm.item()


def trained_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trainable parameters by name."""
    return copies((n, p) for n, p in model.named_parameters() if p.requires_grad)


def frozen_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the frozen parameters by name."""
    return copies((n, p) for n, p in model.named_parameters() if not p.requires_grad)


def copies(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().data.clone() for name, parameter in parameters}
