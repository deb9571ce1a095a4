"""What the loss is: a sum over supervised tokens, checked against the formula written out."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    LlamaForCausalLM,
)

from peftune.data.collate import Batching
from peftune.data.rows import IGNORED, EncodedRow
from peftune.training.loss import batch_nll_sum, count_targets, nll_sum

VOCABULARY = 11
CAUSAL = Batching("causal", pad_token_id=0)
LABELS = torch.tensor(
    [
        [IGNORED, IGNORED, 4, 1, 7],
        [IGNORED, 0, 10, IGNORED, IGNORED],
        [IGNORED, IGNORED, IGNORED, 5, IGNORED],
        [IGNORED, IGNORED, IGNORED, IGNORED, IGNORED],
    ]
)


def random_logits() -> torch.Tensor:
    """Logits (4, 5, 11), far enough from uniform for a wrong position to show."""
    return 3 * torch.randn(4, 5, VOCABULARY, generator=torch.Generator().manual_seed(0))


def written_out(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    """-(1-ε) log p(label) - ε mean over the vocabulary of log p, token by token, in float64."""
    total = 0.0
    for row in range(labels.shape[0]):
        for position in range(1, labels.shape[1]):
            label = int(labels[row, position])
            if label != IGNORED:
                predicted = logits[row, position - 1].double()
                log_p = predicted - predicted.exp().sum().log()
                total -= float((1 - smoothing) * log_p[label] + smoothing * log_p.mean())
    return total


def test_a_label_counts_when_a_token_before_it_predicts_it() -> None:
    assert count_targets(LABELS, "causal") == 6
    assert count_targets(torch.tensor([[3, 4, IGNORED], [5, IGNORED, IGNORED]]), "causal") == 1
    assert count_targets(torch.tensor([[3], [IGNORED]]), "causal") == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_sum_is_the_formula(smoothing: float) -> None:
    expected = written_out(random_logits(), LABELS, smoothing)
    assert float(nll_sum(random_logits(), LABELS, "causal", smoothing)) == pytest.approx(expected)


def test_without_smoothing_is_the_default() -> None:
    plain = nll_sum(random_logits(), LABELS, "causal")
    assert torch.equal(plain, nll_sum(random_logits(), LABELS, "causal", 0.0))
    assert not torch.isclose(plain, nll_sum(random_logits(), LABELS, "causal", 0.1))


def test_what_is_counted_is_what_is_summed() -> None:
    """Equal logits make every token cost log V, so the sum tells how many there were."""
    nll = nll_sum(torch.zeros(4, 5, VOCABULARY), LABELS, "causal")
    expected = count_targets(LABELS, "causal") * torch.tensor(float(VOCABULARY)).log()
    torch.testing.assert_close(nll, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_supervised_is_zero_with_a_gradient_of_zero(smoothing: float) -> None:
    """A filler row keeps a rank in lockstep: it must go backward and weigh nothing."""
    logits = random_logits().requires_grad_()
    nll = nll_sum(logits, torch.full((4, 5), IGNORED), "causal", smoothing)
    nll.backward()
    assert nll.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_halves_make_the_whole(smoothing: float) -> None:
    logits = random_logits()
    halves = [nll_sum(logits[part], LABELS[part], "causal", smoothing) for part in ([0, 1], [2, 3])]
    torch.testing.assert_close(sum(halves), nll_sum(logits, LABELS, "causal", smoothing))
    assert all(half > 1 for half in halves)


def test_logits_where_nothing_is_learnt_do_not_matter() -> None:
    """Not even when they overflow; each label reads the logits one position before it."""
    logits = random_logits()
    expected = nll_sum(logits, LABELS, "causal")
    unused = torch.ones(4, 5, dtype=torch.bool)
    unused[:, :-1] = LABELS[:, 1:] == IGNORED
    logits[unused] = torch.nan
    assert torch.equal(nll_sum(logits, LABELS, "causal"), expected)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = random_logits().bfloat16()
    nll = nll_sum(logits, LABELS, "causal")
    assert nll.dtype == torch.float32
    assert nll.item() == pytest.approx(written_out(logits, LABELS, 0.0), rel=1e-6)


@pytest.fixture(scope="module")
def llama(model_folder: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32").eval()


@pytest.fixture
def rows() -> list[EncodedRow]:
    """Prompts of 3, 6 and 2 tokens with completions of 4, 1 and 9."""
    generator, encoded = torch.Generator().manual_seed(1), []
    for prompt, completion in ((3, 4), (6, 1), (2, 9)):
        size = (prompt + completion,)
        ids = tuple(torch.randint(2, 384, size, generator=generator).tolist())
        labels = (IGNORED,) * prompt + ids[prompt:]
        encoded.append(EncodedRow(ids, labels, ids[:prompt], len(encoded)))
    return encoded


def widened(batch: dict[str, torch.Tensor], by: int, token: int) -> dict[str, torch.Tensor]:
    fillers = {"input_ids": token, "attention_mask": 0, "labels": IGNORED}
    return {
        name: torch.nn.functional.pad(tensor, (0, by), value=fillers[name])
        for name, tensor in batch.items()
    }


def test_the_width_of_the_padding_changes_no_sum(
    llama: LlamaForCausalLM, rows: list[EncodedRow]
) -> None:
    batch = CAUSAL.collate(rows)
    expected = batch_nll_sum(llama, batch, "causal")
    for token in (0, 77):
        wider = batch_nll_sum(llama, widened(batch, by=20, token=token), "causal")
        torch.testing.assert_close(wider, expected, rtol=1e-6, atol=0.0)


def test_a_batch_is_the_sum_of_its_rows(llama: LlamaForCausalLM, rows: list[EncodedRow]) -> None:
    alone = [batch_nll_sum(llama, CAUSAL.collate([row]), "causal") for row in rows]
    together = batch_nll_sum(llama, CAUSAL.collate(rows), "causal")
    torch.testing.assert_close(together, sum(alone), rtol=1e-6, atol=0.0)
    with_filler = batch_nll_sum(llama, CAUSAL.collate([*rows, CAUSAL.filler(rows)]), "causal")
    torch.testing.assert_close(with_filler, together, rtol=1e-6, atol=0.0)


def test_the_mean_is_what_transformers_calls_the_loss(
    llama: LlamaForCausalLM, rows: list[EncodedRow]
) -> None:
    batch = CAUSAL.collate(rows)
    theirs = llama(**batch).loss
    ours = batch_nll_sum(llama, batch, "causal") / count_targets(batch["labels"], "causal")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0.0)


def test_a_filler_batch_goes_through_the_model(llama: LlamaForCausalLM) -> None:
    nll = batch_nll_sum(llama, CAUSAL.collate([CAUSAL.filler([])]), "causal", label_smoothing=0.1)
    nll.backward()
    assert nll.item() == 0.0
    gradients = [p.grad for p in llama.parameters() if p.grad is not None]
    llama.zero_grad()
    assert gradients
    assert all(torch.count_nonzero(gradient) == 0 for gradient in gradients)


def test_tags_and_spans_are_the_models_own_loss(models: dict[str, Path]) -> None:
    """transformers takes the mean over tagged tokens, and over windows of both borders' means."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    tags = torch.tensor([[IGNORED, 1, 2, IGNORED], [0, IGNORED, 1, 1]])
    tagger = AutoModelForTokenClassification.from_pretrained(models["bert"], num_labels=3).eval()
    span = torch.tensor([[1, 2], [0, 0]])
    reader = AutoModelForQuestionAnswering.from_pretrained(models["bert"]).eval()
    with torch.no_grad():
        ours = batch_nll_sum(tagger, {**inputs, "labels": tags}, "tags") / 5
        assert float(ours) == pytest.approx(float(tagger(**inputs, labels=tags).loss))
        ours = batch_nll_sum(reader, {**inputs, "labels": span}, "span") / 4
        theirs = reader(**inputs, start_positions=span[:, 0], end_positions=span[:, 1]).loss
        assert float(ours) == pytest.approx(float(theirs))


def test_the_loss_of_a_span_does_not_depend_on_its_batch(models: dict[str, Path]) -> None:
    """Padding is no place for an answer: with it the sum would grow with the width of the batch."""
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(models["bert"]).eval()
    batching = Batching("span", pad_token_id=0)
    rows = [EncodedRow((5, 6, 7), (1, 2), (), 0), EncodedRow((8,) * 20, (0, 0), (), 1)]
    with torch.no_grad():
        together = batch_nll_sum(model, batching.collate(rows), "span")
        alone = sum(batch_nll_sum(model, batching.collate([row]), "span") for row in rows)
    assert float(together) == pytest.approx(float(alone), rel=1e-5)
