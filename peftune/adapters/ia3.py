"""(IA)³: one trained factor for each key, value and feed-forward activation (arXiv:2205.05638)."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from peftune.errors import ModelError
from peftune.section import Items, Section

if TYPE_CHECKING:
    from peft import IA3Config


class Ia3Section(Section):
    """Rescales activations of frozen layers; far fewer parameters than LoRA."""

    method: Literal["ia3"]
    """(IA)³."""

    target_modules: Annotated[Items[str], Field(min_length=1)] | None = None
    """Linear layers to rescale; without it the choice peft makes for the architecture."""

    feedforward_modules: Items[str] | None = None
    """Those of `target_modules` that are rescaled at their input instead of their output."""

    @model_validator(mode="after")
    def feedforward_among_targets(self) -> Self:
        if (self.target_modules is None) != (self.feedforward_modules is None):
            raise ValueError("give both or neither of target_modules and feedforward_modules")
        for name in self.feedforward_modules or ():
            if name not in (self.target_modules or ()):
                raise ValueError(f"feedforward_modules: {name} is not among target_modules")
        return self


def peft_config(section: Ia3Section, model_type: str, task_type: str | None) -> "IA3Config":
    """peft's configuration of (IA)³, targets looked up by `model_type` where none are given.

    Raises ModelError when peft has no default for the architecture.
    """
    from peft import IA3Config

    if section.target_modules is None:
        targets, feedforward = _defaults(model_type)
    else:
        targets, feedforward = list(section.target_modules), list(section.feedforward_modules or ())
    return IA3Config(task_type=task_type, target_modules=targets, feedforward_modules=feedforward)


def _defaults(model_type: str) -> tuple[list[str], list[str]]:
    from peft.utils import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD_MODULES,
    )
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGET_MODULES

    if model_type not in TARGET_MODULES or model_type not in FEEDFORWARD_MODULES:
        raise ModelError(
            f"adapter.target_modules: peft has no (IA)³ default for the architecture {model_type}; "
            "list target_modules and feedforward_modules."
        )
    return TARGET_MODULES[model_type], FEEDFORWARD_MODULES[model_type]
