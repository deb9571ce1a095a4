"""What is hidden of a text, and that it depends on seed, step and row alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.collate import Batching
from peftune.data.corruption import (
    Corruption,
    Infilling,
    Masking,
    Noise,
    SpanCorruption,
    Stream,
    corruption,
)
from peftune.data.order import rank_micro_batches, step_rows
from peftune.data.rows import EncodedRow
from peftune.data.section import DataSection
from peftune.errors import DataError, ModelError

BEGIN, END, MASK = 1, 2, 3
SENTINELS = tuple(range(9_000, 9_100))
NOISES: dict[str, Noise] = {
    "masking": Masking(0.15, MASK, tuple(range(10, 5_000))),
    "spans": SpanCorruption(0.15, SENTINELS, END),
    "infilling": Infilling(0.3, MASK),
}
LENGTHS = st.integers(1, 300)
SEEDS = st.integers(0, 2**32 - 1)


def text_row(tokens: int, first: int = 100) -> EncodedRow:
    text = tuple(range(first, first + tokens))
    return EncodedRow((BEGIN, *text, END), (-100, *text, -100), (), 4)


@given(LENGTHS, SEEDS)
def test_masked_tokens_are_learnt_and_the_tokenizer_s_own_are_left(tokens: int, seed: int) -> None:
    row = text_row(tokens)
    found = NOISES["masking"].corrupted(row, Stream(seed, 0, 0))
    hidden = [i for i, label in enumerate(found.labels) if label != -100]
    assert len(hidden) == max(1, round(0.15 * tokens))
    assert all(found.labels[i] == row.input_ids[i] for i in hidden)
    pairs = zip(found.input_ids, row.input_ids, strict=True)
    assert {i for i, (new, old) in enumerate(pairs) if new != old} <= set(hidden)
    assert {0, tokens + 1}.isdisjoint(hidden)


def test_masking_as_bert_does_it() -> None:
    """Of 15 % of the tokens 80 % become the mask, 10 % another token, 10 % stay; each in turn."""
    row, kinds = text_row(200), np.zeros(3)
    places = np.zeros(len(row.input_ids))
    for step in range(1000):
        found = NOISES["masking"].corrupted(row, Stream(7, step, 0))
        for i, label in enumerate(found.labels):
            if label != -100:
                places[i] += 1
                new = found.input_ids[i]
                kinds[0 if new == MASK else 2 if new == label else 1] += 1
    # Of 30,000 draws four standard deviations are 0.9 % of 80 and 0.7 % of 10 %.
    assert kinds / kinds.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.009)
    assert places[1:-1].min() > 100 and places[1:-1].max() < 200


@given(LENGTHS, SEEDS)
def test_spans_and_what_stays_make_the_text(tokens: int, seed: int) -> None:
    row = text_row(tokens)
    found = NOISES["spans"].corrupted(row, Stream(seed, 3, 1))
    assert (found.input_ids[0], found.input_ids[-1], found.labels[-1]) == (BEGIN, END, END)
    hidden: dict[int, list[int]] = {}
    for label in map(int, found.labels[:-1]):
        if label in SENTINELS:
            hidden[label] = []
        else:
            hidden[[*hidden][-1]].append(label)
    assert [*hidden] == list(SENTINELS[: len(hidden)])
    assert all(hidden.values())
    whole = [t for token in found.input_ids for t in hidden.get(token, [token])]
    assert tuple(whole) == row.input_ids
    count = sum(map(len, hidden.values()))
    assert count == (1 if tokens == 1 else max(1, min(round(0.15 * tokens), tokens - 1)))
    assert len(hidden) == max(1, min(round(count / 3), tokens - count))


@given(LENGTHS, SEEDS)
def test_filling_in_gives_the_whole_text(tokens: int, seed: int) -> None:
    row = text_row(tokens)
    found = NOISES["infilling"].corrupted(row, Stream(seed, None, 0))
    assert found.labels == row.input_ids
    kept = [token for token in found.input_ids if token != MASK]
    assert kept == [token for token in row.input_ids if token in set(kept)]
    assert len(row.input_ids) - len(kept) == max(1, round(0.3 * tokens))
    assert (found.input_ids[0], found.input_ids[-1]) == (BEGIN, END)


def test_lengths_of_spans_to_fill_in_are_poisson() -> None:
    drawn = (Infilling(0.3, MASK)._lengths(300, Stream(1, step, 0)) for step in range(200))
    # The last one is cut to the tokens that are left.
    lengths = [length for one in drawn for length in one[:-1]]
    assert np.mean(lengths) == pytest.approx(3, abs=0.05)
    assert np.var(lengths) == pytest.approx(3, abs=0.15)
    assert np.mean([n == 0 for n in lengths]) == pytest.approx(np.exp(-3), abs=0.006)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize(("world_size", "per_device"), [(2, 1), (2, 3), (3, 2)])
def test_the_same_is_hidden_on_any_number_of_ranks(
    noise: Noise, world_size: int, per_device: int
) -> None:
    rows = [text_row(20 + i, 100 * i) for i in range(11)]
    batching = Batching("masked", 0, None, Corruption(noise, seed=5))
    for step in range(3):
        ids = step_rows(5, step, len(rows), 6)
        alone = {i: batching.drawn(rows[i], i, step) for i in ids}
        shared = {
            i: batching.drawn(rows[i], i, step)
            for rank in range(world_size)
            for share in rank_micro_batches(
                ids, [len(rows[i].input_ids) for i in ids], rank, world_size, per_device, True
            )
            for i in share
            if i is not None
        }
        assert shared == alone


def test_every_step_row_and_seed_hides_something_else_and_held_out_rows_always_the_same() -> None:
    row = text_row(100)
    drawn = [
        Corruption(NOISES["masking"], seed).apply(row, index, step).labels
        for seed in (0, 1)
        for index in (0, 1, 2)
        for step in (None, 0, 1, 2)
    ]
    assert len(set(drawn)) == len(drawn)
    assert drawn[0] == Corruption(NOISES["masking"], 0).apply(row, 0, None).labels


def test_rows_of_other_objectives_stay_as_they_are() -> None:
    row = text_row(5)
    assert Batching("causal", 0).drawn(row, 0, 3) is row


def test_what_a_tokenizer_has_decides(models: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    section = DataSection(train="t.jsonl", max_length=64)
    tokenizers = {name: AutoTokenizer.from_pretrained(folder) for name, folder in models.items()}
    for name, objective, noise in (
        ("bert", "masked", Masking),
        ("t5", "corrupted", SpanCorruption),
        ("bart", "corrupted", Infilling),
    ):
        found = corruption(objective, tokenizers[name], 400, section, 0)  # type: ignore[arg-type]
        assert found is not None and isinstance(found.noise, noise)
    assert corruption("causal", tokenizers["llama"], 384, section, 0) is None
    masking = corruption("masked", tokenizers["bert"], 400, section, 0)
    assert masking is not None and isinstance(masking.noise, Masking)
    special = set(tokenizers["bert"].all_special_ids)
    assert special.isdisjoint(masking.noise.ordinary_ids)
    with pytest.raises(ModelError) as caught:
        corruption("corrupted", tokenizers["llama"], 384, section, 0)
    assert str(caught.value) == (
        f"model.model_name_or_path: the tokenizer of '{models['llama']}' has no mask token and no "
        "sentinels (<extra_id_0>), so no part of a text can be hidden; choose a model that was "
        "pretrained on plain text."
    )
    with pytest.raises(DataError) as refused:
        corruption("corrupted", tokenizers["t5"], 400, DataSection(train="t.jsonl"), 0)
    assert str(refused.value) == (
        "data.max_length: 1024 tokens have 51 hidden spans, and this model has 16 sentinels; lower "
        "it, or data.mlm_probability."
    )
