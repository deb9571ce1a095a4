"""What a model predicts: one entry for each kind of output layer and loss; imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

ModelClass = Literal["encoder", "encoder-decoder", "decoder"]
MODEL_CLASSES: tuple[ModelClass, ...] = ("encoder", "encoder-decoder", "decoder")
ObjectiveName = Literal[
    "causal", "seq2seq", "label", "labels", "value", "tags", "span", "masked", "corrupted"
]
NEW_HEADS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
"""peft's task types whose output layer no language model has."""


@dataclass(frozen=True)
class Objective:
    """How targets are predicted, and the names that transformers, peft and the Hub have for it."""

    name: ObjectiveName
    auto_class: str
    """Class of transformers that loads such a model."""
    task_type: str | None
    """peft's TaskType; it has none for masked language models."""
    pipeline_tag: str
    """The Hub's name of the task."""
    problem_type: str | None = None
    """What a head that classifies whole texts is told about its labels."""

    @property
    def generates(self) -> bool:
        """Whether the model's own output layer predicts tokens; otherwise a new head scores labels
        or positions."""
        return self.task_type not in NEW_HEADS

    @property
    def writes(self) -> bool:
        """Whether the model writes text of any length, and so has to learn where it ends."""
        return self.generates and self.name != "masked"


_HEAD = ("AutoModelForSequenceClassification", "SEQ_CLS", "text-classification")
OBJECTIVES: dict[ObjectiveName, Objective] = {
    "causal": Objective("causal", "AutoModelForCausalLM", "CAUSAL_LM", "text-generation"),
    "seq2seq": Objective(
        "seq2seq", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", "text2text-generation"
    ),
    "masked": Objective("masked", "AutoModelForMaskedLM", None, "fill-mask"),
    "corrupted": Objective(
        "corrupted", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", "text2text-generation"
    ),
    "label": Objective("label", *_HEAD, "single_label_classification"),
    "labels": Objective("labels", *_HEAD, "multi_label_classification"),
    "value": Objective("value", *_HEAD, "regression"),
    "tags": Objective(
        "tags", "AutoModelForTokenClassification", "TOKEN_CLS", "token-classification"
    ),
    "span": Objective(
        "span", "AutoModelForQuestionAnswering", "QUESTION_ANS", "question-answering"
    ),
}
