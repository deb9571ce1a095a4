"""A toy tokenizer of each family's kind: its class, its model of subwords, its special tokens."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    DebertaV2Tokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

TEXTS = [
    f"{name} asks whether the {colour} {thing} is {mood}, and why; day {day}: it is {mood}."
    for day, name in enumerate(("Mia", "Tom", "Ada", "Leo"))
    for colour in ("red", "green", "blue")
    for thing in ("ladder", "ticket", "tent")
    for mood in ("good", "bad", "odd")
]
# Digits, punctuation and letters that no training text has, so that nothing is unknown.
LETTERS = [chr(code) for code in range(33, 127)]


def byte_level(specials: Sequence[str], size: int = 420) -> tuple[dict[str, int], list[Any]]:
    """Vocabulary and merges of byte-level BPE, the special tokens first."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _learnt(bpe, trainers.BpeTrainer, specials, size, initial_alphabet=alphabet)


def metaspace(specials: Sequence[str], size: int = 420) -> tuple[dict[str, int], list[Any]]:
    """Vocabulary and merges of the BPE that SentencePiece makes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    return _learnt(bpe, trainers.BpeTrainer, specials, size, initial_alphabet=["▁", *LETTERS])


def _learnt(
    bpe: Tokenizer, trainer: Any, specials: Sequence[str], size: int, **options: Any
) -> tuple[dict[str, int], list[Any]]:
    bpe.train_from_iterator(
        TEXTS,
        trainer(vocab_size=size, special_tokens=[*specials], show_progress=False, **options),
    )
    import json

    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model.get("merges", [])]


def unigram(specials: Sequence[str]) -> list[tuple[str, float]]:
    """Pieces with scores, as SentencePiece's unigram model has them, the special tokens first."""
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    pieces = [(word, -6.0) for word in words] + [(letter, -9.0) for letter in ["▁", *LETTERS]]
    return [*((special, 0.0) for special in specials), *pieces]


def llama3() -> Any:
    end, turn = "<|end_of_text|>", "<|eot_id|>"
    headers = ["<|start_header_id|>", "<|end_header_id|>", turn, "<|finetune_right_pad_id|>"]
    specials = ["<|begin_of_text|>", end, *headers]
    tokenizer = _byte_level_fast(specials, bos_token=specials[0], eos_token=turn)
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)],
    )
    return tokenizer


def chatml() -> Any:
    """SmolLM2 and SmolLM3."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return _byte_level_fast(specials, eos_token="<|im_end|>", pad_token="<|im_end|>")


def _byte_level_fast(specials: Sequence[str], **named: str) -> Any:
    vocabulary, merges = byte_level(specials)
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **named)
    tokenizer.add_special_tokens({"additional_special_tokens": [*specials]})
    return tokenizer


def qwen() -> Any:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    vocabulary, merges = byte_level(specials)
    tokenizer = Qwen2Tokenizer(
        vocabulary, merges, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": specials[1:3]})
    tokenizer.add_tokens(specials[3:])
    return tokenizer


def phi() -> Any:
    specials = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    vocabulary, merges = byte_level(specials)
    end = specials[0]
    tokenizer = GPT2Tokenizer(
        vocabulary, merges, bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )
    tokenizer.add_special_tokens({"additional_special_tokens": specials[1:]})
    return tokenizer


def olmoe() -> Any:
    """The roles are plain text."""
    specials = ["<|endoftext|>", "<|padding|>"]
    vocabulary, merges = byte_level(specials)
    end, padding = specials
    return GPTNeoXTokenizer(
        vocabulary, merges, unk_token=end, bos_token=end, eos_token=end, pad_token=padding
    )


def gemma() -> Any:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    images = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    vocabulary, merges = metaspace([*specials, *images, "\n"])
    tokenizer = GemmaTokenizer(vocabulary, merges, add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [*specials[5:], *images]})
    return tokenizer


def mistral() -> Any:
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    vocabulary, merges = metaspace([*specials, "\n"])
    tokenizer = LlamaTokenizer(vocabulary, merges, add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": specials[3:]})
    return tokenizer


def t5() -> Any:
    """T5, Flan-T5 and mT5."""
    sentinels = [f"<extra_id_{number}>" for number in range(100)]
    return T5Tokenizer(unigram(["<pad>", "</s>", "<unk>"]) + [(name, 0.0) for name in sentinels])


def bart() -> Any:
    """BART and RoBERTa."""
    vocabulary, merges = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return RobertaTokenizer(vocabulary, merges)


def nllb() -> Any:
    """With the codes of all languages."""
    vocabulary, merges = metaspace(["<s>", "<pad>", "</s>", "<unk>"])
    return NllbTokenizer(vocabulary, merges)


def bert() -> Any:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [piece for letter in LETTERS for piece in (letter, f"##{letter}")]
    words = sorted({word for text in TEXTS for word in text.lower().split()})
    pieces = dict.fromkeys([*specials, *letters, *words])
    return BertTokenizer({piece: number for number, piece in enumerate(pieces)})


def xlm_roberta() -> Any:
    return XLMRobertaTokenizer(unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


def deberta() -> Any:
    return DebertaV2Tokenizer(unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]))


def modernbert() -> Any:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    named = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = _byte_level_fast(specials, **dict(zip(named, specials, strict=True)))
    ends = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return tokenizer
