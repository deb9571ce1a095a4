"""Scores of what is learnt alone: the same loss and gradient, and no tensor as wide as the vocabulary."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from peftune.data.rows import IGNORED
from peftune.training import supervised_head
from peftune.training.loss import batch_nll_sum
from peftune.training.supervised_head import Learnt, is_plain, scoring, supervise

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
}


def llama(**config: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **config))


def batch(learnt: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (2, 6))
    labels = ids.clone()
    labels[:, : 6 - learnt] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def loss_and_gradient(model: Any, smoothing: float, learnt: int = 3) -> tuple[float, torch.Tensor]:
    """By the hidden layer, which lies before the head."""
    model.zero_grad()
    loss = batch_nll_sum(model, batch(learnt), "causal", smoothing)
    (loss * 0.7).backward()
    return loss.item(), model.model.layers[0].mlp.down_proj.weight.grad.clone()


def frozen_head(model: Any) -> Any:
    model.lm_head.requires_grad_(False)
    return model


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "chunk", [VOCABULARY, 4 * VOCABULARY, 2**23], ids=["rows", "uneven", "one"]
)
def test_loss_and_gradient_are_those_of_all_scores(
    smoothing: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_head, "CHUNK", chunk)
    model = frozen_head(llama())
    expected = loss_and_gradient(model, smoothing)
    supervise(model)
    assert is_plain(model, model.lm_head)
    found = loss_and_gradient(model, smoothing)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-7)


def test_a_batch_without_anything_to_learn_weighs_nothing() -> None:
    model = frozen_head(llama())
    supervise(model)
    loss, gradient = loss_and_gradient(model, 0.1, learnt=0)
    assert loss == 0.0
    assert not gradient.any()


def test_no_scores_are_kept_for_the_backward_pass() -> None:
    model, kept = frozen_head(llama()), []
    supervise(model)
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if VOCABULARY in tensor.shape and tensor.data_ptr() not in own:
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        batch_nll_sum(model, batch(), "causal").backward()
    assert kept == []


def test_validation_forms_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(supervised_head, "logits_gradient", never)
    model = frozen_head(llama())
    supervise(model)
    with torch.no_grad():
        assert batch_nll_sum(model, batch(), "causal").item() > 0


def test_outside_a_loss_scores_are_those_of_the_model() -> None:
    model = frozen_head(llama())
    before = model(input_ids=batch()["input_ids"]).logits
    supervise(model)
    assert torch.equal(model(input_ids=batch()["input_ids"]).logits, before)


def trained_head() -> Any:
    return llama()


def adapted_head() -> Any:
    model = frozen_head(llama())
    get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    return model


def scaled_scores() -> Any:
    torch.manual_seed(0)
    return frozen_head(GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=3.0)))


@pytest.mark.parametrize("make", [trained_head, adapted_head, scaled_scores])
def test_other_heads_score_what_is_learnt_and_keep_their_code(make: Any) -> None:
    model, shapes = make(), []
    for layer in model.model.layers:
        layer.requires_grad_(True)
    expected = loss_and_gradient(model, 0.1)
    assert not is_plain(model, model.get_output_embeddings())
    supervise(model)
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _given, made: shapes.append(tuple(made.shape))
    )
    found = loss_and_gradient(model, 0.1)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-7)
    assert shapes == [(1, 6, VOCABULARY)]


def test_a_bias_on_the_scores_is_not_forgotten() -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "vocab_size": VOCABULARY}
    model = frozen_head(BartForConditionalGeneration(BartConfig(**sizes)))
    assert is_plain(model, model.lm_head)
    model.final_logits_bias += 0.5
    assert not is_plain(model, model.lm_head)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_as_good_as_those_of_all_scores(dtype: torch.dtype) -> None:
    """Against float64; unlikely tokens have gradients that float16 alone could not hold."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 16), torch.randn(3000, 16) * 0.3
    labels = torch.randint(0, 3000, (40,))
    exact = hidden.double().requires_grad_()
    functional.cross_entropy(exact @ weight.double().T, labels, reduction="sum").backward()
    head = torch.nn.Linear(16, 3000, bias=False).requires_grad_(False)
    head.weight.copy_(weight)
    head.to(dtype)
    given = hidden.to(dtype).requires_grad_()
    learnt = Learnt(torch.arange(40), labels, 0.0)
    with scoring(learnt):
        supervised_head.loss_of_learnt(head, head.forward, given[None])
    assert learnt.nll_sum is not None
    learnt.nll_sum.backward()
    assert given.grad is not None and exact.grad is not None
    off = (given.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert off < (0.02 if dtype is torch.bfloat16 else 0.003)
