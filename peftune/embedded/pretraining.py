"""What the pretraining scripts share: tokenizer, training by the clock, loss curve, folder."""

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel

PEAK_RATE, WARMUP_STEPS, SEED = 3e-3, 100, 1
Line = dict[str, float]


def train_bpe(documents: Iterator[str], vocabulary: int, special_tokens: list[str]) -> Tokenizer:
    """Byte-level BPE on the first 20,000 documents; every digit is a token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(islice(documents, 20_000), trainer)
    return bpe


def rows_of(tokenizer: Any) -> int:
    """Rows of the embedding table: one for each token, rounded up to a multiple of 64."""
    return -(-len(tokenizer) // 64) * 64


def scale(share: float, step: int) -> float:
    """Of the peak rate: warmup, then a cosine over the share of the time that has passed."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))


def adamw(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW at the peak rate."""
    return torch.optim.AdamW(
        parameters, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
    )


def muon_and_adamw(model: PreTrainedModel, muon_rate: float) -> list[torch.optim.Optimizer]:
    """Muon (arXiv:2502.16982) for the matrices inside the layers, AdamW for everything else."""
    tables = (module for module in model.modules() if isinstance(module, torch.nn.Embedding))
    embeddings = {id(table.weight) for table in tables}
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        inside = parameter.ndim == 2 and id(parameter) not in embeddings
        (matrices if inside else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=muon_rate, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw(others, weight_decay=0.0)]


def fit(
    model: PreTrainedModel,
    optimizers: list[torch.optim.Optimizer],
    batches: Iterable[Any],
    held_out: Any,
    loss_of: Callable[[Any, Any], torch.Tensor],
    tokens_of: Callable[[Any], int],
    minutes: float,
) -> list[Line]:
    """Train until the time is over; returns the loss curve, a line every 50 steps."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    curve: list[Line] = []
    tokens, started = 0, time.monotonic()
    for step, batch in enumerate(batches):
        seconds = time.monotonic() - started
        share = seconds / (60 * minutes)
        if share >= 1:
            break
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * scale(share, step)
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens += tokens_of(batch)
        if step % 50 == 0:
            with torch.no_grad():
                measured = float(loss_of(model, held_out))
            curve.append(_line(step, tokens, seconds, float(loss.detach()), measured))
    return curve


def _line(step: int, tokens: int, seconds: float, loss: float, held_out_loss: float) -> Line:
    line = {
        "step": step,
        "tokens": tokens,
        "seconds": round(seconds),
        "loss": round(loss, 4),
        "held_out_loss": round(held_out_loss, 4),
    }
    print(line, flush=True)
    return line


def save(model: PreTrainedModel, tokenizer: Any, curve: list[Line], folder: Path) -> None:
    """Write the folder aside, weights in bfloat16, then put it in place; its README stays."""
    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    lines = "".join(json.dumps(line) + "\n" for line in curve)
    (aside / "loss_curve.jsonl").write_text(lines, encoding="utf-8")
    if (folder / "README.md").is_file():
        shutil.copy(folder / "README.md", aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def minutes_asked() -> float:
    """The value of ``--minutes`` on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20, help="time to train (default: 20)")
    return float(parser.parse_args().minutes)
