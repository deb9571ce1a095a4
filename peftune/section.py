"""The base of every recipe section: frozen, strict, and closed to unknown keys."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the recipe that one stage reads.

    Values keep the type that YAML gave them: no text becomes a number behind the user's back.
    A string literal under a field is its documentation, here and in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


Item = TypeVar("Item")
# YAML has lists only; a frozen section keeps them as tuples.
Items = Annotated[tuple[Item, ...], Field(strict=False)]
