"""Formats of rows: their columns, and what becomes of their rows in each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from peftune.data import conversions
from peftune.data.section import FormatName
from peftune.data.table import Row
from peftune.data.template import parse_template

Roles = tuple[str, ...]
PROMPT: Roles = ("prompt", "completion")
TEXT: Roles = ("text",)
LABEL: Roles = ("text", "label")
CHAT: Roles = ("messages",)
TAG: Roles = ("words", "tags")
SPANS: Roles = ("context", "question", "answers")


@dataclass(frozen=True)
class Format:
    """What a format's columns are, and what becomes of its rows."""

    parts: tuple[tuple[tuple[str, ...], ...], ...]
    """For each thing that a row must have, the columns that can hold it; the first choice wins where
    it is there, and several of the others together are ambiguous."""
    roles: Mapping[Roles, Callable[..., Row]]
    """The tasks it serves, by their roles, and the function that makes the roles of a row."""
    prompt_template: str | None = None
    """The prompt of its rows, where it makes no role `prompt`."""


FORMATS: dict[FormatName, Format] = {
    "messages": Format(
        ((("messages",),),),
        {CHAT: conversions.messages_row, PROMPT: conversions.messages_exchange},
    ),
    "prompt_completion": Format(
        ((("prompt",),), (("completion",),)),
        {PROMPT: conversions.prompt_completion, CHAT: conversions.prompt_completion_messages},
    ),
    "text": Format(((("text",),),), {TEXT: conversions.unchanged}),
    "alpaca": Format(
        ((("instruction",),), (("output",),)),
        {PROMPT: conversions.alpaca, CHAT: conversions.alpaca_messages},
    ),
    "sharegpt": Format(
        ((("conversations",), ("conversation",)),),
        {CHAT: conversions.sharegpt_row, PROMPT: conversions.sharegpt_exchange},
    ),
    "squad": Format(
        ((("context",),), (("question",),), (("answers",), ("answer", "answer_start"))),
        {SPANS: conversions.squad, PROMPT: conversions.squad_completion},
        "Context: {context}\n\nQuestion: {question}\n\nAnswer:",
    ),
    "classification": Format(
        (
            (("text",), ("sentence",), ("sentence1", "sentence2"), ("premise", "hypothesis")),
            (("label",), ("labels",)),
        ),
        {LABEL: conversions.classification},
    ),
    "token_classification": Format(
        ((("words",), ("tokens",)), (("tags",), ("ner_tags",), ("labels",))),
        {TAG: conversions.token_classification},
    ),
    "parallel": Format(((("translation",),),), {PROMPT: conversions.parallel}),
}
NATIVE: dict[Roles, FormatName] = {
    PROMPT: "prompt_completion",
    TEXT: "text",
    LABEL: "classification",
    CHAT: "messages",
    TAG: "token_classification",
    SPANS: "squad",
}
"""The format whose columns are the task's own roles."""


@dataclass(frozen=True)
class Conversion:
    """Turns rows of one format into the roles of a task. Its text says all that it depends on."""

    format: FormatName
    roles: Roles
    columns: tuple[tuple[str, str], ...] = ()
    """Role and column name, as the recipe maps them."""
    languages: tuple[str, ...] = ()
    """Columns of the source's and the target's language."""
    roles_only: bool = False
    """Whether other columns are left out, as where rows of several formats are mixed."""
    prompt_template: str | None = None
    """With `roles_only`: how a prompt is made for rows that have none."""

    def __call__(self, row: Row) -> Row:
        """The row with its roles, each in the column that the recipe names for it."""
        named = row
        if self.columns:
            named = {**row, **{role: row[column] for role, column in self.columns if column in row}}
        made = FORMATS[self.format].roles[self.roles](named, *self.languages)
        if self.roles_only:
            return self._only_roles(named, made)
        if not made:
            return row
        mapped = dict(self.columns)
        return {**row, **{mapped.get(role, role): value for role, value in made.items()}}

    @cached_property
    def _kept(self) -> tuple[str, ...]:
        mapped = (role for role, _ in self.columns)
        return (*self.roles, "references", "text_pair", "tools", *mapped)

    def _only_roles(self, named: Row, made: Row) -> Row:
        row = {**{name: named[name] for name in self._kept if name in named}, **made}
        if self.prompt_template is not None and "prompt" not in row:
            template = parse_template(self.prompt_template)
            values = {name: str(row.get(name, "")) for name in template.names}
            row["prompt"] = template.render(values)[0]
        return row
