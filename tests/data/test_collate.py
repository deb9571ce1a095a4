"""Rows become tensors: what is padded, what is learnt, and what a filler weighs."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MBartConfig, MBartForConditionalGeneration

from peftune.data.collate import Batching
from peftune.data.rows import EncodedRow
from peftune.training.loss import count_targets

CAUSAL = Batching("causal", pad_token_id=0)
TARGETS = (EncodedRow((5, 6), (7, 8, 1), (), 0), EncodedRow((5,), (9, 1), (), 1))


def test_rows_are_padded_on_the_right_and_fillers_weigh_nothing() -> None:
    rows = [
        EncodedRow((5, 6, 7), (-100, 6, 7), (5,), 0),
        CAUSAL.filler([]),
        EncodedRow((0, 8), (-100, 8), (), 1),
    ]
    batch = CAUSAL.collate(rows)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [0, 0, 0], [0, 8, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0], [1, 1, 0]],
        "labels": [[-100, 6, 7], [-100, -100, -100], [-100, 8, -100]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_of_fillers_is_one_token_wide() -> None:
    other = Batching("causal", pad_token_id=9)
    assert other.collate([other.filler([])] * 2)["input_ids"].tolist() == [[9], [9]]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_decoder_reads_its_target_moved_by_one(name: str, models: dict[str, Path]) -> None:
    """As the model itself would move it."""
    model = AutoModelForSeq2SeqLM.from_pretrained(models[name])
    batching = Batching("seq2seq", 0, model.config.decoder_start_token_id)
    batch = batching.collate([*TARGETS, batching.filler(TARGETS)])
    expected = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert torch.equal(batch["decoder_input_ids"], expected)
    assert count_targets(batch["labels"], "seq2seq") == 5


def test_the_decoder_of_mbart_starts_with_the_language_at_the_end() -> None:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = MBartConfig(vocab_size=16, d_model=8, encoder_layers=1, decoder_layers=1, **heads)
    batch = Batching("seq2seq", 1, None).collate([EncodedRow((5, 6), (7, 8, 2, 12), (), 0)])
    expected = MBartForConditionalGeneration(config).prepare_decoder_input_ids_from_labels(
        batch["labels"]
    )
    assert batch["decoder_input_ids"].tolist() == expected.tolist() == [[12, 7, 8, 2]]


@pytest.mark.parametrize(
    ("objective", "labels", "learnt"),
    [("label", (2,), 1), ("labels", (0.0, 1.0, 1.0), 3), ("value", (-100.0,), 1)],
)
def test_labels_are_no_tokens(objective: str, labels: tuple[float, ...], learnt: int) -> None:
    """A filler repeats a whole row, which some heads need, and has nothing to learn."""
    batching = Batching(objective, 0)  # type: ignore[arg-type]
    row = EncodedRow((5, 6), labels, (), 0, (0, 1))
    batch = batching.collate([row, batching.filler([row])])
    assert batch["labels"][0].tolist() == list(labels)
    assert batch["token_type_ids"].tolist() == batch["input_ids"].new_tensor([[0, 1]] * 2).tolist()
    assert batch["input_ids"].tolist() == [[5, 6]] * 2
    assert count_targets(batch["labels"], batching.objective) == learnt


def test_tags_are_padded_and_spans_are_two_numbers() -> None:
    """A filler repeats the first row in full, as it needs something to attend to."""
    tags = Batching("tags", 0)
    rows = [EncodedRow((5, 6, 7), (-100, 1, -100), (), 0), EncodedRow((8,), (0,), (), 1)]
    batch = tags.collate([*rows, tags.filler(rows)])
    nothing = [-100] * 3
    assert batch["labels"].tolist() == [[-100, 1, -100], [0, -100, -100], nothing]
    assert count_targets(batch["labels"], "tags") == 2
    spans = Batching("span", 0)
    rows = [EncodedRow((5, 6, 7), (1, 2), (), 0), EncodedRow((8, 9), (0, 0), (), 0)]
    batch = spans.collate([*rows, spans.filler(rows)])
    assert batch["labels"].tolist() == [[1, 2], [0, 0], [-100, -100]]
    assert count_targets(batch["labels"], "span") == 4
