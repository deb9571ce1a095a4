"""Rows of a context, a question about it, and where the context answers it."""

from typing import Any, NamedTuple

from peftune.data.columns import Check, text_problem, unicode_problem
from peftune.data.roles import column_of
from peftune.data.section import DataSection
from peftune.data.table import Row, json_kind


class Answer(NamedTuple):
    """A stretch of the context."""

    text: str
    start: int
    """Character of the context at which it should stand."""


class Question(NamedTuple):
    """One row."""

    context: str
    question: str
    answer: Answer | None
    """The one to learn, which is the first; None when the context does not answer the question."""
    references: tuple[str, ...]
    """Every accepted answer; an empty text alone where there is none."""


def span_checks(section: DataSection) -> tuple[Check, ...]:
    """What is asked of a row with a context, a question and answers.

    Answers are a list of `{text, answer_start}`, SQuAD's `{text: [...], answer_start: [...]}`, or a
    list of texts, of which the one in column `answer` (without it the first) stands at column
    `answer_start`. No answers: the question cannot be answered.
    """
    first, start = column_of(section, "answer"), column_of(section, "answer_start")

    def problem(row: Row, column: str) -> str | None:
        return _answers_problem(row, column, start) or _first_problem(row, first)

    checks = (("context", text_problem), ("question", text_problem), ("answers", problem))
    return tuple(
        Check(f"data.columns: {role}", column_of(section, role), problem_of)
        for role, problem_of in checks
    )


def question_of(row: Row, section: DataSection) -> Question:
    """The content of a row that passed the checks."""
    first, start = column_of(section, "answer"), column_of(section, "answer_start")
    texts, answer = _answers(row, column_of(section, "answers"), first, start)
    references = tuple(dict.fromkeys(texts)) or ("",)
    context, question = (row[column_of(section, role)] for role in ("context", "question"))
    return Question(context, question, answer, references)


def _answers_problem(row: Row, column: str, start: str) -> str | None:
    if column not in row:
        return "is missing"
    value = row[column]
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
            return "is an object without two equally long lists named text and answer_start"
    elif not isinstance(value, list):
        return f"is {json_kind(value)}, not a list of answers,"
    elif all(isinstance(item, str) for item in value):
        texts, starts = value, [row.get(start)] if value else []
    elif all(isinstance(item, dict) for item in value):
        texts = [item.get("text") for item in value]
        starts = [item.get("answer_start") for item in value]
    else:
        return "holds something other than texts or objects with text and answer_start"
    return _text_list_problem(texts) or _starts_problem(starts)


def _first_problem(row: Row, column: str) -> str | None:
    alone = isinstance(row.get(column, ""), str)
    return None if alone else f"stands beside a column {column!r} that is no text"


def _text_list_problem(texts: list[Any]) -> str | None:
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "holds an answer without text"
    return next(filter(None, map(unicode_problem, texts)), None)


def _starts_problem(starts: list[Any]) -> str | None:
    whole = all(isinstance(at, int) and not isinstance(at, bool) and at >= 0 for at in starts)
    return None if whole else "has an answer without answer_start (a whole number from 0)"


def _answers(row: Row, column: str, first: str, start: str) -> tuple[list[str], Answer | None]:
    """The texts of all answers, and the answer to learn."""
    value = row[column]
    if not value or (isinstance(value, dict) and not value["text"]):
        return [], None
    if isinstance(value, dict):
        return value["text"], Answer(value["text"][0], value["answer_start"][0])
    if isinstance(value[0], str):
        return value, Answer(row.get(first, value[0]), row[start])
    return [item["text"] for item in value], Answer(value[0]["text"], value[0]["answer_start"])
