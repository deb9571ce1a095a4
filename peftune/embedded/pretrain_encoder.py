"""Pretrains the embedded encoder from scratch by masked tokens; two CPU cores, no network.

python peftune/embedded/pretrain_encoder.py [--minutes 20]
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from tokenizers import processors
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from peftune.allocator import keep_freed_memory
from peftune.embedded.corpora import encoder_documents
from peftune.embedded.pretraining import (
    SEED,
    fit,
    minutes_asked,
    muon_and_adamw,
    rows_of,
    save,
    train_bpe,
)

FOLDER = Path(__file__).resolve().parent / "encoder"
PAD, START, SEPARATOR, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
VOCABULARY, WINDOW, BATCH, MUON_RATE = 4096, 64, 32, 6e-3
MASKED_SHARE = 0.2


@dataclass(frozen=True)
class Batch:
    """Windows (BATCH, WINDOW) with masks, the places to predict, and what stood there."""

    ids: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts [CLS] in front and [SEP] behind each text of a pair."""
    bpe = train_bpe(encoder_documents(0), VOCABULARY, [PAD, START, SEPARATOR, MASK])
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {SEPARATOR}",
        pair=f"{START} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(token, bpe.token_to_id(token)) for token in (START, SEPARATOR)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        cls_token=START,
        sep_token=SEPARATOR,
        mask_token=MASK,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Endless masked windows: [CLS], then documents with [SEP] behind each."""
    source, generator = encoder_documents(seed), torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    size = BATCH * (WINDOW - 1)
    while True:
        while len(tokens) < size:
            for ids in tokenizer([next(source) for _ in range(200)])["input_ids"]:
                tokens += ids[1:]
        rows = torch.tensor(tokens[:size]).view(BATCH, WINDOW - 1)
        starts = torch.full((BATCH, 1), tokenizer.cls_token_id)
        yield masked(torch.cat([starts, rows], dim=1), tokenizer, generator)
        tokens = tokens[size:]


def masked(
    ids: torch.Tensor, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> Batch:
    """A fifth of the tokens to predict: of those 80 % masked, 10 % random (arXiv:1810.04805)."""
    special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
    places = (torch.rand(ids.shape, generator=generator) < MASKED_SHARE) & ~special
    kind = torch.rand(ids.shape, generator=generator)
    others = torch.randint(len(tokenizer), ids.shape, generator=generator)
    shown = torch.where(places & (kind < 0.8), tokenizer.mask_token_id, ids)
    shown = torch.where(places & (kind >= 0.9), others, shown)
    return Batch(shown, places, ids[places])


def new_model(tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    """About 1.3 million parameters; every linear layer is a multiple of 64 wide."""
    torch.manual_seed(SEED)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=rows_of(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def masked_loss(model: BertForMaskedLM, batch: Batch) -> torch.Tensor:
    """Mean loss in nats a masked token; only these places pay for the output layer."""
    with torch.autocast("cpu", torch.bfloat16):
        states = model.bert(input_ids=batch.ids).last_hidden_state
        logits = model.cls(states[batch.places])
    return functional.cross_entropy(logits.float(), batch.targets)


def main() -> None:
    """Tokenizer, model, training, folder."""
    keep_freed_memory()
    minutes = minutes_asked()
    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    held_out = next(batches(tokenizer, 1))
    curve = fit(
        model,
        muon_and_adamw(model, MUON_RATE),
        batches(tokenizer, 2),
        held_out,
        masked_loss,
        lambda batch: batch.ids.numel(),
        minutes,
    )
    save(model, tokenizer, curve, FOLDER)


if __name__ == "__main__":
    main()
