"""What the contenders train: a model of random weights, made-up rows of real lengths, and a recipe.

Rows are words of a vocabulary, so that tokens and texts are the same thing. Lengths are log-normal, as
those of DialogSum's dialogues and summaries and of SST-2's sentences are, by a tokenizer of about four
letters a token.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

PAD, END = "<pad>", "</s>"
DIALOGUE, SUMMARY, SENTENCE = (195, 0.45), (30, 0.41), (25, 0.5)
"""Median and sigma of the logarithm, in tokens."""
LABELS = ("negative", "positive")
Row = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """One size of the benchmark."""

    name: str
    task: str
    vocabulary: int
    batch: int
    """Rows in a step, all of one forward pass."""
    model: Callable[[int], PreTrainedModel]
    row: Callable[[random.Random, list[str]], Row]


def words(draw: random.Random, every: list[str], shape: tuple[float, float]) -> str:
    return " ".join(draw.choices(every, k=min(2000, length(draw, *shape))))


def length(draw: random.Random, median: float, sigma: float, least: int = 3) -> int:
    """A log-normal number of tokens."""
    return max(least, round(median * math.exp(draw.gauss(0, sigma))))


def dialogue(draw: random.Random, every: list[str]) -> Row:
    return {"prompt": words(draw, every, DIALOGUE), "completion": words(draw, every, SUMMARY)}


def sentence(draw: random.Random, every: list[str]) -> Row:
    return {"text": words(draw, every, SENTENCE), "label": draw.choice(LABELS)}


def decoder(vocabulary: int) -> PreTrainedModel:
    """About 71 M parameters in the shape of Llama."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def encoder(vocabulary: int) -> PreTrainedModel:
    """About 22 M parameters in the shape of MiniLM-L6."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=len(LABELS),
        pad_token_id=0,
    )
    return BertForSequenceClassification(config)


def encoder_decoder(vocabulary: int) -> PreTrainedModel:
    """About 60 M parameters in the shape of T5-small."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=512,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def tiny(vocabulary: int) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes, **heads, **ends))


WORKLOADS = {
    "decoder": Workload("decoder", "instruct", 49_152, 8, decoder, dialogue),
    "encoder": Workload("encoder", "classify", 30_522, 32, encoder, sentence),
    "encoder-decoder": Workload(
        "encoder-decoder", "instruct", 32_128, 8, encoder_decoder, dialogue
    ),
    # For a test that all of it runs.
    "tiny": Workload("tiny", "instruct", 512, 4, tiny, dialogue),
}


def write(workload: Workload, rows: int, folder: Path) -> None:
    """Model, tokenizer and rows in `folder`, the same for every contender."""
    every = [f"w{i}" for i in range(workload.vocabulary - 2)]
    tokenizer(every).save_pretrained(folder / "model")
    torch.manual_seed(0)
    workload.model(workload.vocabulary).save_pretrained(folder / "model")
    draw = random.Random(0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as out:
        for _ in range(rows):
            out.write(json.dumps(workload.row(draw, every)) + "\n")


def tokenizer(every: list[str]) -> PreTrainedTokenizerFast:
    """One word, one token; rows end with the end token."""
    ids = {word: index for index, word in enumerate([PAD, END, *every])}
    made = Tokenizer(models.WordLevel(ids, unk_token=PAD))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, ids[END])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=PAD, eos_token=END)


def recipe(workload: Workload, folder: Path, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    """The recipe of one run; `options` are sections whose keys are laid over it."""
    data: dict[str, Any] = {"train": str(folder / "train.jsonl"), "max_length": 2048}
    if workload.task == "instruct":
        data["prompt_template"] = "{prompt}"
    tree: dict[str, Any] = {
        "task": workload.task,
        "seed": 0,
        "output_dir": str(folder / "run"),
        "model": {"model_name_or_path": str(folder / "model"), "dtype": "bfloat16"},
        "data": data,
        "adapter": {"method": "lora", "r": 16, "lora_alpha": 32},
        "train": {
            "per_device_train_batch_size": workload.batch,
            "global_batch_size": workload.batch,
            "max_steps": steps,
            "learning_rate": 1.0e-4,
            "lr_scheduler_type": "constant",
            # What transformers trains with unless told otherwise.
            "optim": "adamw_torch_fused",
        },
        "export": {"merge": False, "verify": False},
    }
    for section, values in options.items():
        tree[section] = {**tree.get(section, {}), **values}
    return tree
