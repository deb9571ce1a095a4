"""Rows of known formats as the roles of a task: pure functions, a row in and roles out.

Each raises RowProblem for a row that does not have its format's form.
"""

import json
from collections.abc import Mapping
from typing import Any

from peftune.data.conversations import FIELDS, Message
from peftune.data.table import Row, RowProblem, json_kind

Answer = dict[str, Any]
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
CALL_ROLE = "function_call"
"""Whose messages hold a call of a tool as JSON."""
KEPT = tuple(field for field in FIELDS if field not in ("role", "content"))


def messages_row(row: Row, column: str = "messages") -> Row:
    """Conversations as `messages` and `tools`; a `system` column becomes the first message."""
    messages = _messages(row, column)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    tools = row.get("tools")
    return {"messages": messages, **({"tools": tools} if tools else {})}


def messages_exchange(row: Row, column: str = "messages") -> Row:
    """A conversation of one question and one answer as `prompt` and `completion`."""
    return _exchange(messages_row(row, column), column)


def sharegpt_row(row: Row) -> Row:
    return messages_row(row, _sharegpt_column(row))


def sharegpt_exchange(row: Row) -> Row:
    return messages_exchange(row, _sharegpt_column(row))


def _sharegpt_column(row: Row) -> str:
    return "conversations" if "conversations" in row else "conversation"


def prompt_completion(row: Row) -> Row:
    """Texts stay as they are; lists of messages become texts."""
    if not isinstance(row.get("prompt"), list) and not isinstance(row.get("completion"), list):
        return {}
    return _exchange(prompt_completion_messages(row), "prompt")


def prompt_completion_messages(row: Row) -> Row:
    """Prompt and completion, each a text or a list of messages, as one conversation."""
    made: list[Message] = []
    for column, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(column)
        is_text = isinstance(value, str)
        made += [{"role": role, "content": value}] if is_text else _messages(row, column)
    tools = row.get("tools")
    return {"messages": made, **({"tools": tools} if tools else {})}


def alpaca(row: Row) -> Row:
    """The instruction, with its input under it, as the prompt and the output as the completion."""
    if row.get("history"):
        raise RowProblem("column 'history' holds earlier turns, which are for task chat,")
    parts = [_optional_text(row, "system"), _question(row)]
    return {"prompt": "\n\n".join(filter(None, parts)), "completion": _text(row, "output")}


def alpaca_messages(row: Row) -> Row:
    """As a conversation: the system text, the turns of the history, the instruction, the output."""
    turns = [("system", _optional_text(row, "system"))]
    for pair in row.get("history") or ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowProblem("column 'history' is not a list of pairs of question and answer")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    turns += [("user", _question(row)), ("assistant", _text(row, "output"))]
    return {"messages": [{"role": role, "content": text} for role, text in turns if text]}


def _question(row: Row) -> str:
    parts = [_text(row, "instruction"), _optional_text(row, "input")]
    return "\n\n".join(filter(None, parts))


def squad(row: Row) -> Row:
    """A context, a question, and the answers with the character at which each begins.

    `answers` is SQuAD's `{text: [...], answer_start: [...]}`, a list of objects with these two, or
    texts of which the one in `answer` (without it the first) begins at `answer_start`; the others
    are looked for in the context. No answer: the context does not answer the question.
    """
    answers, texts = _answers(row)
    made = {name: _text(row, name) for name in ("context", "question")}
    return {**made, "answers": answers, "references": texts}


def squad_completion(row: Row) -> Row:
    """As `squad`, with the first answer as the completion and all of them as the references."""
    made = squad(row)
    if not made["references"]:
        raise RowProblem("the question has no answer, which only task extract can learn,")
    return {**made, "completion": made["references"][0]}


def _answers(row: Row) -> tuple[list[Answer], list[str]]:
    value = row.get("answers")
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise RowProblem(
                "column 'answers' has no lists `text` and `answer_start` of one length"
            )
        value = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        made = [{"text": one.get("text"), "answer_start": one.get("answer_start")} for one in value]
        return made, _distinct([one["text"] for one in made])
    return _flat_answers(row, value)


def _flat_answers(row: Row, others: Any) -> tuple[list[Answer], list[str]]:
    if others is not None and not isinstance(others, list):
        raise RowProblem(f"column 'answers' is {json_kind(others)}, not a list of answers,")
    texts = [row["answer"]] if row.get("answer") is not None else []
    texts = _distinct([*texts, *(others or ())])
    if not texts:
        return [], []
    starts = [row.get("answer_start"), *(_text(row, "context").find(text) for text in texts[1:])]
    placed = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True) if s != -1]
    return placed, texts


def _distinct(texts: list[Any]) -> list[str]:
    if not all(isinstance(text, str) for text in texts):
        raise RowProblem("column 'answers' holds something other than texts")
    return list(dict.fromkeys(texts))


def classification(row: Row) -> Row:
    """Names of data sets for a text or a pair of texts and its label as `text` and `label`."""
    made = {}
    pairs = (("text", ""), ("sentence", ""), ("sentence1", "sentence2"), ("premise", "hypothesis"))
    for first, second in pairs:
        if first in row and (not second or second in row):
            made = {"text": row[first], **({"text_pair": row[second]} if second else {})}
            break
    label = next((name for name in ("label", "labels") if name in row), None)
    return {**made, **({"label": row[label]} if label else {})}


def token_classification(row: Row) -> Row:
    """Words and a tag for each."""
    made: dict[str, Any] = {}
    for role, names in (("words", ("words", "tokens")), ("tags", ("tags", "ner_tags", "labels"))):
        found = next((name for name in names if name in row), None)
        made |= {role: row[found]} if found else {}
    return made


def parallel(row: Row, source: str, target: str) -> Row:
    """The texts of two languages as prompt and completion."""
    texts = row["translation"] if isinstance(row.get("translation"), Mapping) else row
    return {"prompt": _text(texts, source), "completion": _text(texts, target)}


def unchanged(row: Row) -> Row:
    """Roles that are there already."""
    return {}


def _exchange(conversation: Row, column: str) -> Row:
    messages = conversation["messages"]
    plain = all(
        isinstance(one["content"], str) and set(one) == {"role", "content"} for one in messages
    )
    roles = [one["role"] for one in messages]
    if not plain or roles[-2:] != ["user", "assistant"] or roles[:-2] not in ([], ["system"]):
        raise RowProblem(
            f"column {column!r} is not one question and its answer, and longer conversations are for "
            "task chat,"
        )
    *before, answer = (one["content"] for one in messages)
    return {"prompt": "\n\n".join(before), "completion": answer}


def _messages(row: Row, column: str) -> list[Message]:
    value = row.get(column)
    if isinstance(value, str):
        value = _parsed(value, f"column {column!r}")
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else json_kind(value)
        raise RowProblem(f"column {column!r} is {kind}, not a list of messages,")
    return [_message(one, column) for one in value]


def _message(value: Any, column: str) -> Message:
    if not isinstance(value, Mapping):
        raise RowProblem(f"column {column!r} holds {json_kind(value)} as a message")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if role == CALL_ROLE:
        return {"role": "assistant", "content": None, "tool_calls": [_call(content, column)]}
    if role not in ROLES:
        raise RowProblem(
            f"column {column!r} holds a message of an unknown role {role!r} (known are "
            f"{', '.join(ROLES)})"
        )
    kept = {key: value[key] for key in KEPT if value.get(key)}
    return {"role": ROLES[role], "content": _content(content, column), **kept}


def _content(value: Any, column: str) -> str | None:
    """Text, also from a list of parts that are all text."""
    if value is None or isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise RowProblem(f"column {column!r} holds a message whose content is not text")
    return "".join(map(str, texts))


def _call(content: Any, column: str) -> Row:
    call = _parsed(content, f"a {CALL_ROLE} in column {column!r}")
    if not isinstance(call, Mapping) or "name" not in call:
        raise RowProblem(f"column {column!r} holds a {CALL_ROLE} without a name")
    function = {"name": call["name"], "arguments": call.get("arguments", {})}
    return {"type": "function", "function": function}


def _parsed(text: Any, what: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise RowProblem(f"{what} is not JSON") from None


def _text(row: Row, column: str) -> str:
    if column not in row:
        raise RowProblem(f"column {column!r} is missing")
    value = row[column]
    if not isinstance(value, str):
        raise RowProblem(f"column {column!r} is {json_kind(value)}, not text,")
    return value


def _optional_text(row: Row, column: str) -> str:
    return _text(row, column) if row.get(column) is not None else ""
