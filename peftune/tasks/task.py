"""What a task is."""

from collections.abc import Mapping
from dataclasses import dataclass

from peftune.objectives import ModelClass, ObjectiveName


@dataclass(frozen=True)
class Task:
    """Which columns a row needs, what the model predicts, and how it is judged."""

    name: str
    roles: tuple[str, ...]
    """What a row must have: ("prompt", "completion"), ("text",), ("text", "label") or
    ("messages",). The last one is learnt."""
    prompt_template: str | None
    """Prompt for recipes without their own; its placeholders are roles. None: the bare prompt."""
    objectives: Mapping[ModelClass, ObjectiveName]
    """What each class of model predicts; a class that is not listed cannot do the task."""
    metrics: tuple[str, ...] = ()
    """Keys of peftune.evaluation.metrics.METRICS for generated text. A head that scores labels has
    the measures of its objective; without either the test loss is the measure."""
