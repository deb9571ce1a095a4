"""Pretrains the embedded encoder-decoder from scratch by infilling; two CPU cores, no network.

python peftune/embedded/pretrain_encoder_decoder.py [--minutes 20]
"""

import random
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
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from peftune.allocator import keep_freed_memory
from peftune.embedded.corpora import encoder_decoder_documents
from peftune.embedded.pretraining import (
    SEED,
    fit,
    minutes_asked,
    muon_and_adamw,
    rows_of,
    save,
    train_bpe,
)

FOLDER = Path(__file__).resolve().parent / "encoder-decoder"
PAD, END = "<pad>", "</s>"
MASK = "<mask>"
VOCABULARY, BATCH, MUON_RATE = 4096, 32, 6e-3
# Pairs of lost share and mean length of a span.
CORRUPTIONS = ((0.15, 2), (0.3, 3), (0.6, 6))
IGNORED = -100
Ids = list[int]


@dataclass(frozen=True)
class Batch:
    """Corrupted documents (BATCH, longest) and their second halves whole, padded by IGNORED."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a mask; every text ends with the end token."""
    bpe = train_bpe(encoder_decoder_documents(0), VOCABULARY, [PAD, END, MASK])
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A {END} $B {END}",
        special_tokens=[(END, bpe.token_to_id(END))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        mask_token=MASK,
        model_max_length=512,
    )


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Endless corrupted documents, those of one batch of about equal length."""
    documents, rng = encoder_decoder_documents(seed), random.Random(seed)
    while True:
        texts = [next(documents) for _ in range(16 * BATCH)]
        pool = sorted(_corrupted_halves(texts, tokenizer, rng), key=_length)
        groups = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        rng.shuffle(groups)
        yield from (_batch(group, tokenizer.pad_token_id) for group in groups)


def _corrupted_halves(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[tuple[Ids, Ids]]:
    """What a text says twice is lost only in its second half, so that the first can tell it."""
    halves = [text.rpartition("\n") for text in texts]
    whole = tokenizer([first + line for first, line, _ in halves])
    lossy = tokenizer([second for _, _, second in halves])
    for first, second in zip(whole.encodings, lossy.encodings, strict=True):
        yield [*first.ids[:-1], *corrupted(second.ids, tokenizer.mask_token_id, rng)], second.ids


def _length(pair: tuple[Ids, Ids]) -> int:
    return len(pair[0]) + len(pair[1])


def _batch(pairs: list[tuple[Ids, Ids]], pad: int) -> Batch:
    sources = [torch.tensor(source) for source, _ in pairs]
    targets = [torch.tensor(target) for _, target in pairs]
    ids = pad_sequence(sources, batch_first=True, padding_value=pad)
    labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    return Batch(ids, (ids != pad).long(), labels)


def corrupted(ids: Ids, mask: int, rng: random.Random) -> Ids:
    """The tokens with a mask for each lost span, as BART infills (arXiv:1910.13461); ended."""
    *words, end = ids
    source: Ids = []
    last = 0
    for kept, lost in _spans(len(words), *rng.choice(CORRUPTIONS), rng):
        source += [*words[kept.start : kept.stop], mask]
        last = lost.stop
    return [*source, *words[last:], end]


def _spans(size: int, share: float, length: int, rng: random.Random) -> list[tuple[range, range]]:
    """What is kept before each lost span, and the lost span; at least one token is lost."""
    lost = max(1, round(share * size))
    count = max(1, round(lost / length))
    # Lost and kept tokens are each cut into `count` parts; a kept rest may follow.
    cuts = [0, *sorted(rng.sample(range(1, lost), count - 1)), lost]
    gaps = sorted(rng.sample(range(size - lost + 1), count))
    spans: list[tuple[range, range]] = []
    before = 0
    for gap, start, stop in zip(gaps, cuts, cuts[1:], strict=False):
        spans.append((range(before, gap + start), range(gap + start, gap + stop)))
        before = gap + stop
    return spans


def new_model(tokenizer: PreTrainedTokenizerFast) -> BartForConditionalGeneration:
    """About 2 million parameters; every linear layer is a multiple of 64 wide."""
    torch.manual_seed(SEED)
    end = tokenizer.eos_token_id
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=rows_of(tokenizer),
            d_model=128,
            encoder_layers=4,
            decoder_layers=2,
            encoder_ffn_dim=512,
            decoder_ffn_dim=512,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            max_position_embeddings=512,
            dropout=0.0,
            # As in BART the decoder starts from the end token.
            decoder_start_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            forced_eos_token_id=None,
        )
    )


def span_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean loss in nats a target token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels, use_cache=False
        ).logits
    return functional.cross_entropy(
        logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
    )


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
        span_loss,
        lambda batch: int(batch.mask.sum() + (batch.labels != IGNORED).sum()),
        minutes,
    )
    save(model, tokenizer, curve, FOLDER)


if __name__ == "__main__":
    main()
