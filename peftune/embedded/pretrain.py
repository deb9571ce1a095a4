"""Pretrains the embedded decoder from scratch on generated text; two CPU cores, no network.

python peftune/embedded/pretrain.py [--minutes 20]
"""

import argparse
import json
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    # glibc gives large blocks back to the system on every free; keeping them trains faster.
    TUNING = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    if not TUNING.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNING})

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from peftune.embedded.make_dialogues import make_row, make_splits, normalized
from peftune.embedded.narration import make_story

FOLDER = Path(__file__).resolve().parent / "decoder"
PAD, END, TURN_START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY, WINDOW, BATCH = 4096, 256, 16
PEAK_RATE, WARMUP_STEPS, SEED = 3e-3, 100, 1
Line = dict[str, float]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def documents(seed: int) -> Iterator[str]:
    """Endless generated documents: dialogues without summaries, and stories."""
    kept_out = {normalized(row.dialogue) for rows in make_splits().values() for row in rows}
    rng = random.Random(f"pretraining {seed}")
    while True:
        text = make_row(rng, True).dialogue if rng.random() < 0.5 else make_story(rng)
        if normalized(text) not in kept_out:
            yield text


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE on 20,000 documents; every digit is a token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    source = documents(0)
    bpe.train_from_iterator((next(source) for _ in range(20_000)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, model_max_length=512
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def windows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches (BATCH, WINDOW) of documents laid end to end."""
    source = documents(seed)
    tokens: list[int] = []
    while True:
        while len(tokens) < BATCH * WINDOW:
            for ids in tokenizer([next(source) for _ in range(200)])["input_ids"]:
                tokens += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(tokens[: BATCH * WINDOW]).view(BATCH, WINDOW)
        tokens = tokens[BATCH * WINDOW :]


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """About 3.2 million parameters; every linear layer is a multiple of 64 wide."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def window_loss(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats a token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())


def rate(share: float, step: int) -> float:
    """Warmup, then a cosine over the share of the time that has passed."""
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))


def fit(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, minutes: float) -> list[Line]:
    """Train until the time is over; returns the loss curve."""
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    held_out = next(windows(tokenizer, 1))
    curve: list[Line] = []
    started = time.monotonic()
    for step, ids in enumerate(windows(tokenizer, 2)):
        share = (time.monotonic() - started) / (60 * minutes)
        if share >= 1:
            return curve
        optimizer.param_groups[0]["lr"] = rate(share, step)
        loss = window_loss(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            curve.append(measured(model, held_out, step, float(loss.detach())))
    return curve


@torch.no_grad()
def measured(model: LlamaForCausalLM, held_out: torch.Tensor, step: int, loss: float) -> Line:
    """One line of the loss curve."""
    line = {
        "step": step,
        "tokens": (step + 1) * BATCH * WINDOW,
        "loss": round(loss, 4),
        "held_out_loss": round(float(window_loss(model, held_out)), 4),
    }
    print(line, flush=True)
    return line


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, curve: list[Line]) -> None:
    """Write the folder aside, then put it in place."""
    aside = FOLDER.with_name("decoder.partial")
    shutil.rmtree(aside, ignore_errors=True)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    lines = "".join(json.dumps(line) + "\n" for line in curve)
    (aside / "loss_curve.jsonl").write_text(lines, encoding="utf-8")
    shutil.copy(FOLDER / "README.md", aside)
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.replace(aside, FOLDER)


def main() -> None:
    """Tokenizer, model, training, folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20)
    minutes = parser.parse_args().minutes
    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    save(model, tokenizer, fit(model, tokenizer, minutes))


if __name__ == "__main__":
    main()
