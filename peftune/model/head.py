"""Which class a model is of, and the output layer it gets for an objective."""

from dataclasses import dataclass
from typing import Any

from peftune.errors import ModelError
from peftune.objectives import ModelClass, Objective


@dataclass(frozen=True)
class Head:
    """An objective with everything that shapes the output layer."""

    objective: Objective
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of their ids; one name for a value, none for a span."""
    pad_token_id: int = 0

    def config_keys(self) -> dict[str, Any]:
        """What the model's configuration says about a head that scores labels or positions."""
        if self.objective.generates:
            return {}
        return {
            **self._outputs(),
            "problem_type": self.objective.problem_type,
            # A head of another task is replaced, not squeezed in.
            "ignore_mismatched_sizes": True,
        }

    def _outputs(self) -> dict[str, Any]:
        if self.objective.name == "span":
            # A start and an end; a checkpoint of a classifier would bring its own number.
            return {"num_labels": 2}
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: index for index, name in enumerate(self.labels)},
        }


def model_class(config: Any) -> ModelClass:
    """The class of a model by its configuration. Raises ModelError for one that is none of them."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED,
    )

    if config.is_encoder_decoder:
        return "encoder-decoder"
    # Encoders can also be run as decoders, so they stand in both tables.
    if config.model_type in MASKED:
        return "encoder"
    if config.model_type in CAUSAL or "auto_map" in config.to_dict():
        return "decoder"
    raise ModelError(
        f"model.model_name_or_path: transformers knows no language model of type "
        f"{config.model_type!r}."
    )


HEAD_TABLES = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}


def require_head(config: Any, objective: Objective, task: str) -> None:
    """Raise ModelError for an architecture that transformers has no such output layer for."""
    from transformers.models.auto import modeling_auto

    if objective.generates or "auto_map" in config.to_dict():
        return
    if config.model_type not in modeling_auto.__dict__[HEAD_TABLES[objective.auto_class]]:
        raise ModelError(
            f"task: {task} needs an output layer that transformers does not have for models of type "
            f"{config.model_type!r}; choose another model."
        )


def head_modules(config: Any, head: Head) -> list[str]:
    """Names of the modules that a new head may have to train in full, before anything is loaded.

    They must not be quantized. None for a model that generates.
    """
    import torch
    from transformers.models.auto import modeling_auto

    if head.objective.generates:
        return []
    with torch.device("meta"):
        model = modeling_auto.__dict__[head.objective.auto_class].from_config(config)
    return [*_beside_base(model), f"{model.base_model_prefix}.pooler"]


def _beside_base(model: Any) -> list[str]:
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and list(module.parameters())
    ]


def new_modules(model: Any, objective: Objective, absent: set[str]) -> list[str]:
    """Names of the modules that start from random numbers, none for a model that generates.

    They have to be trained in full and saved with the adapter. What stands beside the base model is
    the head. A pooler belongs to the base, but masked language models are saved without one;
    `absent` names the weights that the checkpoint did not hold.
    """
    if objective.generates:
        return []
    head = _beside_base(model)
    pooler = f"{model.base_model_prefix}.pooler"
    return [*head, pooler] if any(key.startswith(f"{pooler}.") for key in absent) else head
