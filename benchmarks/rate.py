"""What a machine's matrix product allows: its measured rate, and the operations that training needs."""

import time
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from peftune.model.first_tokens_proof import may_narrow
from peftune.model.unpadding import stacks_of

RANK = 16


def matrix_product_rate(dtype: str, threads: int, device: str = "cpu") -> float:
    """Operations per second of a product as large as those of a training, the best of several."""
    torch.set_num_threads(threads)
    tokens, inputs, outputs = (2048, 1024, 4096) if device == "cpu" else (8192, 4096, 14336)
    x = torch.randn(tokens, inputs, device=device).to(getattr(torch, dtype))
    weight = torch.randn(outputs, inputs, device=device).to(getattr(torch, dtype))
    best = min(_seconds(x, weight) for _ in range(12))
    return 2 * tokens * inputs * outputs / best


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    _wait(x)
    started = time.perf_counter()
    functional.linear(x, weight)
    _wait(x)
    return time.perf_counter() - started


def _wait(x: torch.Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def needed_operations(model: PreTrainedModel, rows: list[dict[str, Any]]) -> float:
    """Operations for one real token, without attention's own: a product forward and one backward for each
    frozen layer, three for each low-rank pair, and the output layer for what is learnt alone. The last
    layer of a model that reads first tokens needs keys and values of every token, the rest of these."""
    inputs = sum(len(row["input_ids"]) for row in rows)
    targets = sum(len(row["labels"]) for row in rows)
    learnt = sum(label != -100 for row in rows for label in row["labels"])
    pairs = model.config.is_encoder_decoder
    firsts = read_at_first_tokens(model)
    total = 0.0
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        # Not by the weight, which may be packed.
        size = module.in_features * module.out_features
        low = 3 * RANK * (module.in_features + module.out_features)
        if module is model.get_output_embeddings():
            total += 4 * size * learnt
        elif name.endswith(("pooler.dense", "classifier")):
            total += 6 * size * len(rows)
        elif module in firsts:
            total += (4 * size + 2 * low) * len(rows)
        else:
            reads_input = not (pairs and name.startswith("decoder.")) or name.endswith(
                ("EncDecAttention.k", "EncDecAttention.v")
            )
            total += (4 * size + 2 * low) * (inputs if reads_input else targets)
    return total / (inputs + targets if pairs else inputs)


def read_at_first_tokens(model: PreTrainedModel) -> set[torch.nn.Module]:
    """The layers whose result is read at the first token of each row alone."""
    if not may_narrow(model):
        return set()
    last = stacks_of(model)[0].layers[-1]
    return {
        module
        for name, module in last.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] not in ("key", "value")
    }
