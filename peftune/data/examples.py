"""Rows become examples: the text of a prompt and of the completion to learn."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

from peftune.data.columns import (
    Check,
    Problem,
    first_problem,
    require_column,
    text_problem,
    unicode_problem,
)
from peftune.data.conversations import Conversation, read_conversation, read_tools
from peftune.data.detection import fitted
from peftune.data.labels import label_problem, label_text
from peftune.data.roles import (
    column_of,
    learns_conversations,
    learns_labels,
    learns_spans,
    learns_tags,
    prompt_template,
)
from peftune.data.section import DataSection
from peftune.data.span_examples import Answer, Question, question_of, span_checks
from peftune.data.table import MisformedRow, Row, Table, json_kind
from peftune.data.tag_examples import tag_checks, tagged_words
from peftune.data.template import Spans, Template


@dataclass(frozen=True)
class Example:
    """One row as text."""

    row: int
    """Position in the source of its split, from 0; for a JSONL file the line number less one."""
    prompt: str
    """Empty for plain text rows, and for these alone."""
    completion: str
    """The text to learn."""
    references: tuple[str, ...]
    """All acceptable completions: the references column, or the completion itself."""
    source: str
    """What the row is about: the values in the prompt without the template's words, or the text."""
    fields: Spans
    """Character spans of the column values inside `prompt`."""
    pair: str = ""
    """A second text that is judged together with the prompt: the other one of a pair (task
    `classify`), or the context of a question (task `extract`)."""
    label: Any = None
    """The label as it stands in the row (task `classify`), or the name of each word's tag."""
    words: tuple[str, ...] = ()
    """What is tagged (task `tag`)."""
    answer: Answer | None = None
    """Where the context answers the question (task `extract`); None when it does not."""
    conversation: Conversation | None = None
    """The messages (task `chat`); `prompt` is then all but the last one, to look at."""


@dataclass(frozen=True)
class Reading:
    """How the rows of a run become examples."""

    section: DataSection
    roles: tuple[str, ...]
    """The columns that the task's rows must have, the one to learn last."""
    default_template: str | None
    """The prompt of a recipe without its own."""

    def of(self, table: Table) -> "Reading":
        """As the rows of `table` are read: with what their format says by itself."""
        return replace(self, section=fitted(self.section, table, self.roles))

    @cached_property
    def template(self) -> Template | None:
        return prompt_template(self.section, self.roles, self.default_template)

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """What is asked of each row, in this order; a placeholder names a role, else a column."""
        section, roles, target = self.section, self.roles, self.target
        if learns_tags(roles):
            return tag_checks(section)
        if learns_spans(roles):
            return span_checks(section)
        if learns_conversations(roles):
            tools = Check("data.columns: tools", self.tools, _tools_problem, False)
            return Check("data.columns: messages", target, _messages_problem), tools
        problem = label_problem if learns_labels(roles) else text_problem
        checks = [Check(f"data.columns: {roles[-1]}", target, problem)]
        for name in self.template.names if self.template else ():
            is_role = name in roles or name in section.columns
            key = f"data.columns: {name}" if is_role else "data.prompt_template"
            checks.append(Check(key, column_of(section, name), _prompt_problem))
        if self.template is not None and learns_labels(roles) and self.pair is not None:
            checks.append(Check("data.columns: text_pair", self.pair, text_problem))
        if self.template is not None and not learns_labels(roles):
            column = column_of(section, "references")
            checks.append(Check("data.columns: references", column, _references_problem, False))
        return tuple(checks)

    @property
    def target(self) -> str:
        return column_of(self.section, self.roles[-1])

    @property
    def tools(self) -> str:
        return column_of(self.section, "tools")

    @property
    def pair(self) -> str | None:
        return self.section.columns.get("text_pair")


def require_columns(table: Table, reading: Reading) -> None:
    """Raise DataError for a column that no row has."""
    for check in reading.checks:
        if check.required:
            require_column(table, check.key, check.column)


def read_rows(
    rows: Iterable[tuple[int, Row]], reading: Reading, source_key: str
) -> tuple[list[Example], list[Problem]]:
    """The examples of some rows of a split, and the rows that are none.

    `source_key` is the recipe key that names the split's source.
    """
    examples: list[Example] = []
    problems: list[Problem] = []
    for position, row in rows:
        problem = _form_problem(position, row, source_key)
        problem = problem or first_problem(position, row, reading.checks)
        example = None if problem else _example(position, row, reading)
        if example is not None and reading.template is not None and not example.source.strip():
            text = f"{source_key}: the prompt has no content"
            problem = Problem(position, len(reading.checks), text)
        if problem is not None:
            problems.append(problem)
        elif example is not None:
            examples.append(example)
    return examples, problems


def _form_problem(position: int, row: Row, source_key: str) -> Problem | None:
    """What the row's format has against it, which comes before all that its columns hold."""
    if not isinstance(row, MisformedRow):
        return None
    return Problem(position, -1, f"{source_key}: {row.problem}")


def _example(position: int, row: Row, reading: Reading) -> Example:
    section, template, target = reading.section, reading.template, reading.target
    if learns_tags(reading.roles):
        return _tag_example(position, *tagged_words(row, section))
    if learns_spans(reading.roles):
        return _span_example(position, question_of(row, section))
    if learns_conversations(reading.roles):
        return _chat_example(position, read_conversation(row[target], row.get(reading.tools)))
    if template is None:
        return _text_example(position, row[target])
    if learns_labels(reading.roles):
        return _label_example(position, row, reading, template)
    references = row.get(column_of(section, "references"))
    return _prompt_example(position, row, section, template, row[target], references)


def _tag_example(position: int, words: tuple[str, ...], tags: list[str]) -> Example:
    text, shown = " ".join(words), " ".join(tags)
    return Example(position, "", shown, (shown,), text, (), label=tags, words=words)


def _span_example(position: int, asked: Question) -> Example:
    return Example(
        row=position,
        prompt=asked.question,
        completion=asked.references[0],
        references=asked.references,
        source=f"{asked.context}\n{asked.question}",
        fields=(),
        pair=asked.context,
        answer=asked.answer,
    )


def _text_example(position: int, text: str) -> Example:
    return Example(position, "", text, (text,), text, ())


def _chat_example(position: int, found: Conversation) -> Example:
    question, answer = found.question, found.answer
    return Example(position, question, answer, (answer,), question, (), conversation=found)


def _prompt_example(
    position: int,
    row: Row,
    section: DataSection,
    template: Template,
    completion: str,
    references: list[str] | None,
) -> Example:
    prompt, fields, source = _rendered(row, section, template)
    return Example(
        row=position,
        prompt=prompt,
        completion=completion,
        references=tuple(references) if references else (completion,),
        source=source,
        fields=fields,
    )


def _rendered(row: Row, section: DataSection, template: Template) -> tuple[str, Spans, str]:
    """The prompt, the spans of the values in it, and the values alone."""
    values = {name: str(row[column_of(section, name)]) for name in template.names}
    prompt, fields = template.render(values)
    return prompt, fields, "\n".join(values.values())


def _label_example(position: int, row: Row, reading: Reading, template: Template) -> Example:
    prompt, fields, source = _rendered(row, reading.section, template)
    second = row[reading.pair] if reading.pair is not None else ""
    label = row[reading.target]
    shown = label_text(label)
    source = f"{source}\n{second}" if second else source
    return Example(position, prompt, shown, (shown,), source, fields, second, label)


def _prompt_problem(row: Row, column: str) -> str | None:
    """Numbers may stand in a prompt as they are; a single blank value may be a valid one."""
    if column not in row:
        return "is missing"
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"is {json_kind(value)}, not text,"
    if isinstance(value, str):
        return unicode_problem(value)
    # What other tools write for a missing number would stand in the prompt as the word "nan".
    return None if isinstance(value, int) or isfinite(value) else f"is {value}, not text,"


def _messages_problem(row: Row, column: str) -> str | None:
    try:
        read_conversation(row.get(column))
    except ValueError as error:
        return f"holds no conversation, as {error},"
    return None


def _tools_problem(row: Row, column: str) -> str | None:
    try:
        read_tools(row.get(column))
    except ValueError as error:
        return f"holds no tools, as {error},"
    return None


def _references_problem(row: Row, column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if not isinstance(value, list):
        return f"is {json_kind(value)}, not a list of texts,"
    if not value or not all(isinstance(item, str) and item.strip() for item in value):
        return "is not a list of texts that are not blank"
    return next(filter(None, map(unicode_problem, value)), None)
