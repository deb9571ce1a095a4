"""Rows become examples: the text of a prompt and of the completion to learn."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from peftune.data.labels import label_problem, label_text
from peftune.data.roles import column_of, learns_labels, prompt_template
from peftune.data.section import DataSection
from peftune.data.table import Row, Table, json_kind
from peftune.data.template import Spans, Template
from peftune.errors import DataError, did_you_mean


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
    """A second text that is judged together with the prompt (task `classify`)."""
    label: Any = None
    """The label as it stands in the row (task `classify`)."""


def read_examples(
    table: Table, section: DataSection, roles: tuple[str, ...], default_template: str | None
) -> list[Example]:
    """Turn every row of `table` into an example; `default_template` serves a recipe without one.

    A placeholder names a role of `data.columns`, else a column. Raises DataError for a column that
    no row has and for the first kind of wrong value, with its count and its first row.
    """
    template = prompt_template(section, roles, default_template)
    target = column_of(section, roles[-1])
    _require_column(table, f"data.columns: {roles[-1]}", target)
    problem = label_problem if learns_labels(roles) else _text_problem
    _require_values(table, f"data.columns: {roles[-1]}", target, problem)
    for name in template.names if template else ():
        is_role = name in roles or name in section.columns
        key = f"data.columns: {name}" if is_role else "data.prompt_template"
        _require_column(table, key, column_of(section, name))
        _require_values(table, key, column_of(section, name), _prompt_problem)
    if template is None:
        return [_text_example(position, row[target]) for position, row in table]
    if learns_labels(roles):
        examples = _label_examples(table, section, template, target)
        _require_prompts(table, examples)
        return examples
    references = column_of(section, "references")
    _require_values(table, "data.columns: references", references, _references_problem)
    examples = [
        _prompt_example(position, row, section, template, row[target], row.get(references))
        for position, row in table
    ]
    _require_prompts(table, examples)
    return examples


def _text_example(position: int, text: str) -> Example:
    return Example(position, "", text, (text,), text, ())


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


def _label_examples(
    table: Table, section: DataSection, template: Template, target: str
) -> list[Example]:
    pair = section.columns.get("text_pair")
    if pair is not None:
        _require_column(table, "data.columns: text_pair", pair)
        _require_values(table, "data.columns: text_pair", pair, _text_problem)
    examples = []
    for position, row in table:
        prompt, fields, source = _rendered(row, section, template)
        second = row[pair] if pair is not None else ""
        shown = label_text(row[target])
        source = f"{source}\n{second}" if second else source
        examples.append(
            Example(position, prompt, shown, (shown,), source, fields, second, row[target])
        )
    return examples


def _require_column(table: Table, key: str, column: str) -> None:
    if column in table.columns:
        return
    columns = table.all_columns
    if not columns:
        raise DataError(f"{table.key}: the rows of {table.place} have no columns.")
    if column not in columns:
        where = table.key if table.key != "data.path" else table.place
        raise DataError(
            f"{key}: no column named {column!r} in {where}.{did_you_mean(column, columns)} "
            f"The columns are: {', '.join(columns)}."
        )


def _require_values(
    table: Table, key: str, column: str, problem_of: Callable[[Row, str], str | None]
) -> None:
    """Raise DataError for the first problem that `problem_of` finds, with the count of its kind."""
    problems = [(position, problem_of(row, column)) for position, row in table]
    first = next(((position, problem) for position, problem in problems if problem), None)
    if first is not None:
        position, problem = first
        alike = sum(problem == other for _, other in problems)
        raise DataError(f"{key}: column {column!r} {problem} in {_share(table, alike, position)}.")


def _share(table: Table, count: int, first: int) -> str:
    return table.share(count, first)


def _text_problem(row: Row, column: str) -> str | None:
    if column not in row:
        return "is missing"
    value = row[column]
    if not isinstance(value, str):
        return f"is {json_kind(value)}, not text,"
    return _unicode_problem(value) or ("is blank" if not value.strip() else None)


def _prompt_problem(row: Row, column: str) -> str | None:
    """Numbers may stand in a prompt as they are; a single blank value may be a valid one."""
    if column not in row:
        return "is missing"
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"is {json_kind(value)}, not text,"
    if isinstance(value, str):
        return _unicode_problem(value)
    # What other tools write for a missing number would stand in the prompt as the word "nan".
    return None if isinstance(value, int) or isfinite(value) else f"is {value}, not text,"


def _references_problem(row: Row, column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if not isinstance(value, list):
        return f"is {json_kind(value)}, not a list of texts,"
    if not value or not all(isinstance(item, str) and item.strip() for item in value):
        return "is not a list of texts that are not blank"
    return next(filter(None, map(_unicode_problem, value)), None)


def _unicode_problem(text: str) -> str | None:
    """JSON can spell half of a surrogate pair, which no tokenizer and no file can take."""
    lone = not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
    return "holds half a surrogate pair (\\ud800 to \\udfff)" if lone else None


def _require_prompts(table: Table, examples: list[Example]) -> None:
    blank = [example.row for example in examples if not example.source.strip()]
    if blank:
        raise DataError(
            f"{table.key}: the prompt has no content in {_share(table, len(blank), blank[0])}."
        )
