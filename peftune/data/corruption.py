"""Text with parts hidden for a model to find out: a function of seed, step and row, never of ranks.

Rows come from encoders/hidden.py: `labels` are the row's own tokens where they may be hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, Protocol

import numpy as np

from peftune.data.rows import IGNORED, EncodedRow
from peftune.data.section import DataSection
from peftune.errors import DataError, ModelError
from peftune.objectives import ObjectiveName

STREAM = 2**32
"""Second half of the key of these random numbers; data order has the epoch there."""
SHARE, INFILLING_SHARE = 0.15, 0.3
"""Tokens that are hidden where the recipe does not say: BERT's and T5's share, and BART's."""
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
MEAN_SPAN = 3.0
"""Tokens of a hidden span on average."""


class Stream:
    """Uniform numbers in [0, 1) that depend on seed, step and row alone.

    The raw outputs of Philox4x64-10 (Salmon et al. 2011) with step and row in its counter: no two
    rows share any, on whatever rank they are read, and NumPy keeps the raw stream stable (NEP 19).
    """

    def __init__(self, seed: int, step: int | None, row: int) -> None:
        # Held-out rows have no step, so that their loss is the same whenever it is measured.
        turn = 0 if step is None else step + 1
        self._philox = np.random.Philox(
            key=np.array([seed, STREAM], np.uint64), counter=np.array([0, 0, turn, row], np.uint64)
        )

    def uniform(self, size: int) -> np.ndarray:
        """float64 (size,)."""
        return (self._philox.random_raw(size) >> np.uint64(11)) * 2.0**-53

    def choose(self, size: int, of: int) -> np.ndarray:
        """`size` different numbers below `of`, in increasing order, int64 (size,)."""
        return np.sort(np.argsort(self.uniform(of), kind="stable")[:size])


class Noise(Protocol):
    """A way of hiding parts of a row."""

    def corrupted(self, row: EncodedRow, stream: Stream) -> EncodedRow:
        """The row as the model reads it, with what it has to find out."""


@dataclass(frozen=True)
class Corruption:
    """What a run hides of its rows."""

    noise: Noise
    seed: int

    def apply(self, row: EncodedRow, index: int, step: int | None) -> EncodedRow:
        """`row`, at position `index` of its split, as it is read in a step; None: held out."""
        return self.noise.corrupted(row, Stream(self.seed, step, index))


def hidden_count(tokens: int, share: float) -> int:
    """How many of so many tokens are hidden: the share, at least one."""
    return max(1, round(tokens * share))


@dataclass(frozen=True)
class Masking:
    """Single tokens, most of them replaced by the mask token.

    Of the chosen tokens 80 % become the mask, 10 % another ordinary token and 10 % stay as they are;
    all of them are learnt. Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1.
    """

    share: float
    mask_id: int
    ordinary_ids: tuple[int, ...]
    """What a token may be replaced by."""

    def corrupted(self, row: EncodedRow, stream: Stream) -> EncodedRow:
        maskable = np.flatnonzero(np.array(row.labels) != IGNORED)
        chosen = maskable[stream.choose(hidden_count(len(maskable), self.share), len(maskable))]
        ids, labels = list(row.input_ids), [IGNORED] * len(row.input_ids)
        lots, picks = stream.uniform(len(chosen)), stream.uniform(len(chosen))
        for index, lot, pick in zip(chosen.tolist(), lots, picks, strict=True):
            labels[index] = ids[index]
            if lot < MASK_SHARE:
                ids[index] = self.mask_id
            elif lot < MASK_SHARE + RANDOM_SHARE:
                ids[index] = self.ordinary_ids[int(pick * len(self.ordinary_ids))]
        return EncodedRow(tuple(ids), tuple(labels), (), row.row, row.token_type_ids)


@dataclass(frozen=True)
class SpanCorruption:
    """Spans, each replaced by a sentinel of its own; the target names each and what it hid.

    Source: Raffel et al. 2019, arXiv:1910.10683, section 3.1.4; lengths and places as
    `random_spans_noise_mask` of the T5 code draws them: the text begins with a span that stays.
    """

    share: float
    sentinels: tuple[int, ...]
    end_id: int

    def corrupted(self, row: EncodedRow, stream: Stream) -> EncodedRow:
        front, text, behind = _parts(row)
        source: list[int] = []
        target: list[int] = []
        start = 0
        spans = self._spans(len(text), stream)
        for sentinel, (kept, hidden) in zip(self.sentinels, spans, strict=False):
            source += [*text[start : start + kept], sentinel]
            target += [sentinel, *text[start + kept : start + kept + hidden]]
            start += kept + hidden
        return EncodedRow((*front, *source, *behind), (*target, self.end_id), (), row.row)

    def _spans(self, tokens: int, stream: Stream) -> list[tuple[int, int]]:
        """(tokens that stay, tokens that are hidden) for each span, from left to right."""
        if tokens == 1:
            return [(0, 1)]
        hidden = min(hidden_count(tokens, self.share), tokens - 1)
        spans = min(span_count(hidden), tokens - hidden)
        stays = _split(tokens - hidden, spans, stream)
        return list(zip(stays, _split(hidden, spans, stream), strict=True))


def span_count(hidden: int) -> int:
    """Spans of MEAN_SPAN tokens on average that hold so many tokens."""
    return max(1, round(hidden / MEAN_SPAN))


def _split(total: int, parts: int, stream: Stream) -> list[int]:
    """`total` as a sum of `parts` positive numbers; every such sum is equally likely."""
    cuts = stream.choose(parts - 1, total - 1) + 1
    return np.diff([0, *cuts.tolist(), total]).tolist()


@dataclass(frozen=True)
class Infilling:
    """Spans of a Poisson length, each replaced by one mask; the target is the whole text.

    A span of no tokens is a mask where nothing is missing. Source: Lewis et al. 2019,
    arXiv:1910.13461, section 2.2.
    """

    share: float
    mask_id: int

    def corrupted(self, row: EncodedRow, stream: Stream) -> EncodedRow:
        front, text, behind = _parts(row)
        lengths = self._lengths(hidden_count(len(text), self.share), stream)
        kept = len(text) - sum(lengths)
        places = set(stream.choose(len(lengths), kept + len(lengths)).tolist())
        source: list[int] = []
        start = 0
        rest = iter(lengths)
        for place in range(kept + len(lengths)):
            source.append(self.mask_id if place in places else text[start])
            start += next(rest) if place in places else 1
        return EncodedRow((*front, *source, *behind), row.input_ids, (), row.row)

    def _lengths(self, hidden: int, stream: Stream) -> list[int]:
        """Lengths of spans that hide `hidden` tokens together; the last one is cut to fit."""
        lengths: list[int] = []
        while (left := hidden - sum(lengths)) > 0:
            lengths.append(min(_poisson(float(stream.uniform(1)[0]), MEAN_SPAN), left))
        return lengths


def _poisson(uniform: float, mean: float) -> int:
    """The smallest number whose cumulative Poisson probability is above `uniform`."""
    number, term = 0, math.exp(-mean)
    cumulative = term
    while cumulative <= uniform and term > 0:
        number += 1
        term *= mean / number
        cumulative += term
    return number


def _parts(row: EncodedRow) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """The tokens in front of the text, the text, and those behind it."""
    places = [index for index, label in enumerate(row.labels) if label != IGNORED]
    first, last = places[0], places[-1] + 1
    return row.input_ids[:first], row.input_ids[first:last], row.input_ids[last:]


def corruption(
    objective: ObjectiveName, tokenizer: Any, vocabulary: int, section: DataSection, seed: int
) -> Corruption | None:
    """What is hidden of the rows for an objective; None where nothing is.

    `vocabulary` is the model's. Raises ModelError for a tokenizer without a token for what is hidden
    and DataError for rows with more spans than there are sentinels.
    """
    match objective:
        case "masked":
            return Corruption(_masking(tokenizer, vocabulary, section), seed)
        case "corrupted":
            return Corruption(_spans_or_infilling(tokenizer, section), seed)
    return None


def _masking(tokenizer: Any, vocabulary: int, section: DataSection) -> Masking:
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Masking(
        share=section.mlm_probability or SHARE,
        mask_id=_mask_id(tokenizer),
        ordinary_ids=tuple(i for i in range(min(len(tokenizer), vocabulary)) if i not in special),
    )


def _spans_or_infilling(tokenizer: Any, section: DataSection) -> Noise:
    """What the model was pretrained with, which its tokenizer tells."""
    words = tokenizer.get_vocab()
    names = takewhile(words.__contains__, (f"<extra_id_{index}>" for index in count()))
    sentinels = tuple(words[name] for name in names)
    if not sentinels:
        return Infilling(section.mlm_probability or INFILLING_SHARE, _mask_id(tokenizer))
    share = section.mlm_probability or SHARE
    most = span_count(hidden_count(section.max_length, share))
    if most > len(sentinels):
        raise DataError(
            f"data.max_length: {section.max_length} tokens have {most} hidden spans, and this model "
            f"has {len(sentinels)} sentinels; lower it, or data.mlm_probability."
        )
    return SpanCorruption(share, sentinels, tokenizer.eos_token_id)


def _mask_id(tokenizer: Any) -> int:
    if tokenizer.mask_token_id is None:
        raise ModelError(
            f"model.model_name_or_path: the tokenizer of {tokenizer.name_or_path!r} has no mask token "
            "and no sentinels (<extra_id_0>), so no part of a text can be hidden; choose a model that "
            "was pretrained on plain text."
        )
    return int(tokenizer.mask_token_id)
