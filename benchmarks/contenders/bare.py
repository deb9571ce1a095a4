"""The first optimizer step of `recipes/summarize.yaml`, by transformers and peft alone.

python bare.py MODEL_FOLDER TRAIN_FILE WRITTEN_AFTER_THE_STEP
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS, PER_PASS, LONGEST = 16, 8, 384


def main() -> None:
    folder, file, done = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    adapted = get_peft_model(model, lora)
    learning = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=2.0e-3, weight_decay=0.0)
    lines = Path(file).read_text(encoding="utf-8").splitlines()[:ROWS]
    rows = [encoded(tokenizer, json.loads(line)) for line in lines]
    for start in range(0, ROWS, PER_PASS):
        adapted(**padded(rows[start : start + PER_PASS])).loss.backward()
    torch.nn.utils.clip_grad_norm_(learning, 1.0)
    optimizer.step()
    Path(done).write_text("step")


def encoded(tokenizer: object, row: dict[str, str]) -> tuple[list[int], list[int]]:
    prompt = tokenizer(f"Dialogue:\n{row['dialogue']}\n\nSummary:")["input_ids"]  # type: ignore[operator]
    written = tokenizer(f" {row['summary']}")["input_ids"]  # type: ignore[operator]
    ids = [*prompt, *written, tokenizer.eos_token_id][:LONGEST]  # type: ignore[attr-defined]
    return ids, ([-100] * len(prompt) + ids[len(prompt) :])[:LONGEST]


def padded(rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    filled = [
        (ids + [0] * (width - len(ids)), [1] * len(ids) + [0] * (width - len(ids)),
         labels + [-100] * (width - len(ids)))
        for ids, labels in rows
    ]  # fmt: skip
    names = ("input_ids", "attention_mask", "labels")
    return {
        name: torch.tensor(values)
        for name, values in zip(names, zip(*filled, strict=True), strict=True)
    }


if __name__ == "__main__":
    main()
