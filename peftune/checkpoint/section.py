"""The recipe's `resume:` section."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from peftune.section import Items, Section


class ResumeSection(Section):
    """Whether a run goes on from a checkpoint in `output_dir`. `resume: auto` is short for the first
    key."""

    checkpoint: str | None = Field(default=None, pattern=r"^(auto|checkpoint-\d+)$")
    """`auto` for the newest checkpoint that is whole, or the name of one, such as checkpoint-100."""

    allow: Items[str] = ()
    """Keys that may have another value than when the checkpoint was saved."""


def _long_form(value: Any) -> Any:
    return {"checkpoint": value} if isinstance(value, str) else value


Resume = Annotated[
    ResumeSection, BeforeValidator(_long_form, json_schema_input_type=ResumeSection | str)
]
