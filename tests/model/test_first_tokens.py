"""A last layer that computes first tokens alone says, learns and drops what the whole one does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForSequenceClassification,
)

from peftune.errors import ModelError
from peftune.model.documents import reading_of
from peftune.model.first_tokens_proof import may_narrow
from peftune.model.unpadding import stacks_of, unpad
from peftune.training.draws import row_draws
from peftune.training.dropout import dropout_from
from peftune.training.recomputation import recompute

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
BERT = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = {**SIZES, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
SERVED: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**BERT)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**BERT)),
    "electra": lambda: ElectraForSequenceClassification(
        ElectraConfig(**BERT, embedding_size=16, summary_last_dropout=0.0)
    ),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTIL)),
}


class MeanBert(BertForSequenceClassification):
    """Reads every token."""

    def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        hidden = self.bert(input_ids, attention_mask)[0] * attention_mask[..., None]
        return (self.classifier(hidden.sum(1) / attention_mask.sum(1, keepdim=True)),)


PRE_NORM = RobertaPreLayerNormForSequenceClassification
ROTARY = {**SIZES, "global_attn_every_n_layers": 1, "bos_token_id": 1, "eos_token_id": 2}
WHOLE: dict[str, Callable[[], PreTrainedModel]] = {
    "words": lambda: BertForMaskedLM(BertConfig(**BERT)),
    "tags": lambda: BertForTokenClassification(BertConfig(**BERT)),
    "mean": lambda: MeanBert(BertConfig(**BERT)),
    "norm first": lambda: PRE_NORM(RobertaPreLayerNormConfig(**BERT)),
    "rotary": lambda: ModernBertForSequenceClassification(ModernBertConfig(**ROTARY)),
    "causal": lambda: LlamaForSequenceClassification(LlamaConfig(**SIZES)),
}
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 0, 0, 0], [7, 0, 0, 0, 0], [4, 5, 6, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS > 0).long(), "row_ids": torch.arange(4)[:, None]}


def made(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(0)
    model = make()
    model.set_attn_implementation("sdpa")
    return model


def computed(model: PreTrainedModel) -> tuple[torch.Tensor, list[Any]]:
    """Scores in training, and the gradients of every parameter."""
    inputs = {name: BATCH[name] for name in ("input_ids", "attention_mask")}
    model.train()
    with reading_of(BATCH), dropout_from(row_draws(1, 0, BATCH)):
        logits = model(**inputs)[0]
        (logits * torch.arange(1.0, logits.numel() + 1).view_as(logits)).sum().backward()
    return logits.detach(), [p.grad for p in model.parameters()]


def require_the_same(one: PreTrainedModel, other: PreTrainedModel) -> None:
    (logits, gradients), (expected, others) = computed(one), computed(other)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients, others, strict=True):
        # Keys have no gradient by their bias, in exact numbers.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SERVED)
def test_first_tokens_alone_are_the_same_training(name: str) -> None:
    model, padded = made(SERVED[name]), made(SERVED[name])
    assert may_narrow(model)
    unpad(model, first_tokens=True)
    seen: list[int] = []
    for layer in stacks_of(model)[0].layers:
        layer.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    require_the_same(model, padded)
    assert seen == [int(BATCH["attention_mask"].sum()), len(IDS)]


@pytest.mark.parametrize("name", WHOLE)
def test_what_reads_more_computes_more(name: str) -> None:
    assert not may_narrow(made(WHOLE[name]))


@pytest.mark.parametrize("recomputed", [False, True, "selective"])
def test_the_same_is_dropped_and_computed_again(recomputed: Any) -> None:
    sizes = {**SIZES, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
    models = [made(lambda: BertForSequenceClassification(BertConfig(**sizes))) for _ in range(2)]
    unpad(models[0], first_tokens=True)
    recompute(models[0], recomputed)
    unpad(models[1])
    require_the_same(*models)


def test_a_model_that_turns_its_keys_is_refused() -> None:
    """Where a name says nothing of what is done to keys, the layer itself notices."""
    model = made(SERVED["bert"])
    key = stacks_of(model)[0].layers[-1].attention.self.key
    unpad(model, first_tokens=True)
    key.register_forward_hook(lambda _, __, output: output + 1.0)
    with pytest.raises(ModelError, match="changed on their way"):
        computed(model)
