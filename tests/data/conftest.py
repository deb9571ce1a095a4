"""Tokenizers trained on the spot, and files to read rows from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.data.chat_templates import SPECIAL as SHAPE_TOKENS

SPECIAL = ["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Tom: Can you buy milk today? Ada: Yes, I will buy two bottles.\nSummary: Ada buys milk.",
    "Ada: Where is the red bike? Tom: It stands behind the house.\nSummary: The bike is there.",
]


def trained_bpe(special: list[str] = SPECIAL) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return bpe


def fast(bpe: Tokenizer, **names: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, **{"pad_token": "<pad>", "eos_token": "<eos>", **names}
    )


def adding(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts its own tokens around each text, e.g. `<bos> $A`."""
    bpe = trained_bpe()
    bpe.post_processor = processors.TemplateProcessing(
        single=template,
        special_tokens=[(name, SPECIAL.index(name)) for name in ("<bos>", "<eos>")],
    )
    return fast(bpe, bos_token="<bos>")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with pad and end tokens; adds nothing by itself."""
    return fast(trained_bpe())


@pytest.fixture(scope="session")
def trimming_tokenizer() -> PreTrainedTokenizerFast:
    """As `tokenizer`, but its offsets leave blanks out, as GPT-2's do."""
    bpe = trained_bpe()
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    return fast(bpe)


@pytest.fixture(scope="session")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    return adding("<bos> $A")


@pytest.fixture(scope="session")
def bos_eos_tokenizer() -> PreTrainedTokenizerFast:
    return adding("<bos> $A <eos>")


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """With a ChatML template, and a start token that the template must not get twice."""
    chat = adding("<bos> $A")
    chat.chat_template = CHATML
    return chat


@pytest.fixture(scope="session")
def shapes_tokenizer() -> PreTrainedTokenizerFast:
    """With the special tokens of all stand-in chat templates."""
    return fast(trained_bpe(SHAPE_TOKENS), bos_token="<s>", eos_token="</s>")


WriteRows = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRows:
    """Write rows to a JSONL file of the current folder; returns the relative path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, *rows: object) -> Path:
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return Path(name)

    return write
