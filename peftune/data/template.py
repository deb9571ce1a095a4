"""Prompt templates: text with column names in braces, and nothing cleverer than that."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from peftune.errors import DataError

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Template:
    """Literal texts, each followed by the placeholder that stands behind it, if any."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The placeholders, each once, in the order of their first use."""
        return tuple(dict.fromkeys(name for _, name in self.pieces if name is not None))

    def render(self, values: Mapping[str, str]) -> tuple[str, Spans]:
        """The filled text, and the character span of every value in it."""
        text, spans = "", []
        for literal, name in self.pieces:
            text += literal
            if name is not None:
                spans.append((len(text), len(text) + len(values[name])))
                text += values[name]
        return text, tuple(spans)


def parse_template(text: str) -> Template:
    """Split a template at its `{column}` placeholders; `{{` and `}}` stand for literal braces.

    Only names are allowed: no positions, attributes, indices, conversions or format
    specifications, so that a template can neither reach into objects nor fail on some rows only.
    Raises DataError.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise DataError(
            f"data.prompt_template: {_as_sentence(error)}. Write {{{{ or }}}} for a literal brace."
        ) from error
    for _, name, specification, conversion in parts:
        if name is not None:
            _require_plain(name, specification, conversion)
    template = Template(tuple((literal, name) for literal, name, _, _ in parts))
    if not template.names:
        raise DataError(
            "data.prompt_template: names no column, so every prompt would be the same. "
            "Put a column name in braces."
        )
    return template


def _require_plain(name: str, specification: str | None, conversion: str | None) -> None:
    plain = name and not name.isdecimal() and not set(name) & set(".[]{}")
    if specification or conversion or not plain:
        typed = name + (f"!{conversion}" if conversion else "")
        typed += f":{specification}" if specification else ""
        raise DataError(
            f"data.prompt_template: {{{typed}}} is not a plain column name in braces. "
            "Write {{ or }} for a literal brace."
        )


def _as_sentence(error: ValueError) -> str:
    return str(error)[0].lower() + str(error)[1:]
