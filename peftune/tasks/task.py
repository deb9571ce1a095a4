"""What a task is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Which columns a row needs and how the adapted model is judged."""

    name: str
    roles: tuple[str, ...]
    """What a row must have: ("prompt", "completion") or ("text",). The last one is learnt."""
    prompt_template: str | None
    """Prompt for recipes without their own; its placeholders are roles. None: the bare prompt."""
    generates: bool
    """Judged by generating on the test split; otherwise by the test loss alone."""
    metrics: tuple[str, ...] = ()
    """Keys of peftune.evaluation.metrics.METRICS."""
