"""Pretrains the embedded encoder-decoder from scratch by corrupted spans; no network.

python peftune/embedded/pretrain_encoder_decoder.py [--minutes 20]
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from peftune.embedded.tuned_memory import restart_tuned

    restart_tuned()

import torch
from tokenizers import processors
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

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
SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
VOCABULARY, BATCH, MUON_RATE = 4096, 48, 6e-3
# Pairs of corrupted share and mean length of a span, from a few words to nearly everything.
CORRUPTIONS = ((0.3, 2), (0.5, 4), (0.8, 12))
IGNORED = -100
Ids = list[int]


@dataclass(frozen=True)
class Batch:
    """Corrupted documents (BATCH, longest) and what is missing in them, padded by IGNORED."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the sentinels of T5; every text ends with the end token."""
    bpe = train_bpe(encoder_decoder_documents(0), VOCABULARY, [PAD, END, *SENTINELS])
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A {END} $B {END}",
        special_tokens=[(END, bpe.token_to_id(END))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=SENTINELS,
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
    vocabulary = tokenizer.get_vocab()
    sentinels = [vocabulary[sentinel] for sentinel in SENTINELS]
    halves = [text.rpartition("\n") for text in texts]
    whole = tokenizer([first + line for first, line, _ in halves])
    lossy = tokenizer([second for _, _, second in halves])
    for first, second in zip(whole.encodings, lossy.encodings, strict=True):
        source, target = corrupted(second.ids, sentinels, rng)
        yield [*first.ids[:-1], *source], target


def _length(pair: tuple[Ids, Ids]) -> int:
    return len(pair[0]) + len(pair[1])


def _batch(pairs: list[tuple[Ids, Ids]], pad: int) -> Batch:
    sources = [torch.tensor(source) for source, _ in pairs]
    targets = [torch.tensor(target) for _, target in pairs]
    ids = pad_sequence(sources, batch_first=True, padding_value=pad)
    labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    return Batch(ids, (ids != pad).long(), labels)


def corrupted(ids: Ids, sentinels: Ids, rng: random.Random) -> tuple[Ids, Ids]:
    """Source with sentinels for spans, target with the spans behind their sentinels; both ended.

    The form of T5 (arXiv:1910.10683); share and length of the spans vary as in arXiv:2205.05131.
    """
    *words, end = ids
    share, length = rng.choice(CORRUPTIONS)
    source: Ids = []
    target: Ids = []
    for number, (kept, lost) in enumerate(_spans(len(words), share, length, rng)):
        source += [*words[kept.start : kept.stop], sentinels[number]]
        target += [sentinels[number], *words[lost.start : lost.stop]]
        last = lost.stop
    return [*source, *words[last:], end], [*target, end]


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


def new_model(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """About 1.6 million parameters; every linear layer is a multiple of 64 wide."""
    torch.manual_seed(SEED)
    # The configuration class takes these two but does not list them.
    more: dict[str, Any] = {
        "tie_word_embeddings": True,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=rows_of(tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=4,
            num_decoder_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            **more,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
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
