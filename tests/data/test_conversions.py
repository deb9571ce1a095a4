"""Rows of each format as the roles of each task that it serves."""

from typing import Any

import pytest

from peftune.data.formats import CHAT, LABEL, PROMPT, SPANS, TAG, Conversion, Roles
from peftune.data.section import FormatName
from peftune.data.table import RowProblem


def converted(format: FormatName, roles: Roles, row: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return dict(Conversion(format, roles, roles_only=True, **keys)(row))


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASKED = [said("user", "Hi"), said("assistant", "Hello")]
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
TOOLS = [{"type": "function", "function": {"name": "clock"}}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SPAN = {"context": "Ada sat.", "question": "Who?"}
ANSWERS = [{"text": "Ada", "answer_start": 0}]
ALPACA = {"instruction": "Add", "input": "1 2", "output": "3"}


@pytest.mark.parametrize(
    ("format", "roles", "row", "expected"),
    [
        # Messages.
        ("messages", CHAT, {"messages": ASKED, "id": 1}, {"messages": ASKED}),
        (
            "messages",
            CHAT,
            {"messages": [*ASKED, said("assistant", None, tool_calls=[CALL])], "tools": TOOLS},
            {
                "messages": [*ASKED, said("assistant", None, tool_calls=[CALL])],
                "tools": TOOLS,
            },
        ),
        (
            "messages",
            CHAT,
            {"messages": [said("tool", "noon", tool_call_id="7", name="clock", extra=1)]},
            {"messages": [said("tool", "noon", tool_call_id="7", name="clock")]},
        ),
        (
            "messages",
            CHAT,
            {"messages": [said("user", [{"type": "text", "text": "a"}, {"text": "b"}])]},
            {"messages": [said("user", "ab")]},
        ),
        (
            "messages",
            PROMPT,
            {"messages": [said("system", "Be kind."), *ASKED]},
            {"prompt": "Be kind.\n\nHi", "completion": "Hello"},
        ),
        # Prompt and completion.
        (
            "prompt_completion",
            PROMPT,
            {"prompt": "Hi", "completion": "Hello", "references": ["Hey"], "id": 1},
            {"prompt": "Hi", "completion": "Hello", "references": ["Hey"]},
        ),
        (
            "prompt_completion",
            PROMPT,
            {"prompt": ASKED[:1], "completion": ASKED[1:]},
            {"prompt": "Hi", "completion": "Hello"},
        ),
        ("prompt_completion", CHAT, {"prompt": "Hi", "completion": "Hello"}, {"messages": ASKED}),
        (
            "prompt_completion",
            CHAT,
            {"prompt": [*ASKED, said("user", "And?")], "completion": [said("assistant", "No.")]},
            {"messages": [*ASKED, said("user", "And?"), said("assistant", "No.")]},
        ),
        # Alpaca.
        ("alpaca", PROMPT, ALPACA, {"prompt": "Add\n\n1 2", "completion": "3"}),
        (
            "alpaca",
            PROMPT,
            {**ALPACA, "input": None, "system": "Count.", "history": []},
            {"prompt": "Count.\n\nAdd", "completion": "3"},
        ),
        (
            "alpaca",
            CHAT,
            {**ALPACA, "input": "", "system": "Count.", "history": [["Hi", "Hello"]]},
            {
                "messages": [
                    said("system", "Count."),
                    *ASKED,
                    said("user", "Add"),
                    said("assistant", "3"),
                ]
            },
        ),
        # ShareGPT.
        ("sharegpt", CHAT, {"conversations": SHAREGPT}, {"messages": ASKED}),
        ("sharegpt", CHAT, {"conversation": ASKED}, {"messages": ASKED}),
        ("sharegpt", PROMPT, {"conversations": SHAREGPT}, {"prompt": "Hi", "completion": "Hello"}),
        (
            "sharegpt",
            CHAT,
            {
                "system": "Be kind.",
                "tools": TOOLS,
                "conversations": [
                    {"from": "user", "value": "Time?"},
                    {
                        "from": "function_call",
                        "value": '{"name": "clock", "arguments": {"zone": "UTC"}}',
                    },
                    {"from": "observation", "value": "noon"},
                    {"from": "chatgpt", "value": "Noon."},
                ],
            },
            {
                "messages": [
                    said("system", "Be kind."),
                    said("user", "Time?"),
                    said("assistant", None, tool_calls=[CALL]),
                    said("tool", "noon"),
                    said("assistant", "Noon."),
                ],
                "tools": TOOLS,
            },
        ),
        # SQuAD.
        (
            "squad",
            SPANS,
            {**SPAN, "answers": {"text": ["Ada", "Ada"], "answer_start": [0, 0]}, "id": "1"},
            {**SPAN, "answers": ANSWERS * 2, "references": ["Ada"]},
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answers": ANSWERS},
            {**SPAN, "answers": ANSWERS, "references": ["Ada"]},
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answers": {"text": [], "answer_start": []}},
            {**SPAN, "answers": [], "references": []},
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answer": "Ada", "answer_start": 0, "answers": ["Ada", "sat", "she"]},
            {
                **SPAN,
                "answers": [*ANSWERS, {"text": "sat", "answer_start": 4}],
                "references": ["Ada", "sat", "she"],
            },
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answer": "Ada", "answer_start": 0},
            {**SPAN, "answers": ANSWERS, "references": ["Ada"]},
        ),
        (
            "squad",
            PROMPT,
            {**SPAN, "answers": ["Ada", "she"], "answer_start": 0},
            {
                **SPAN,
                "answers": ANSWERS,
                "references": ["Ada", "she"],
                "completion": "Ada",
            },
        ),
        # Labels.
        ("classification", LABEL, {"text": "a", "label": 1}, {"text": "a", "label": 1}),
        (
            "classification",
            LABEL,
            {"sentence": "a", "labels": ["x"]},
            {"text": "a", "label": ["x"]},
        ),
        (
            "classification",
            LABEL,
            {"premise": "a", "hypothesis": "b", "label": "yes", "idx": 3},
            {"text": "a", "text_pair": "b", "label": "yes"},
        ),
        (
            "classification",
            LABEL,
            {"sentence1": "a", "sentence2": "b", "label": 0.5},
            {"text": "a", "text_pair": "b", "label": 0.5},
        ),
        (
            "token_classification",
            TAG,
            {"tokens": ["a", "b"], "ner_tags": [0, 1], "pos_tags": [3, 4]},
            {"words": ["a", "b"], "tags": [0, 1]},
        ),
        (
            "token_classification",
            TAG,
            {"words": ["a"], "tags": ["O"]},
            {"words": ["a"], "tags": ["O"]},
        ),
    ],
)
def test_roles(
    format: FormatName, roles: Roles, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert converted(format, roles, row) == expected


@pytest.mark.parametrize(
    "row", [{"translation": {"de": "Hallo", "en": "Hello"}}, {"de": "Hallo", "en": "Hello"}]
)
def test_parallel_text(row: dict[str, Any]) -> None:
    both = converted("parallel", PROMPT, row, languages=("de", "en"))
    assert both == {"prompt": "Hallo", "completion": "Hello"}
    other = converted("parallel", PROMPT, row, languages=("en", "de"))
    assert other == {"prompt": "Hello", "completion": "Hallo"}


def test_other_columns_stay_and_roles_go_where_the_recipe_looks_for_them() -> None:
    conversion = Conversion("messages", CHAT, columns=(("messages", "talk"),))
    assert conversion({"talk": SHAREGPT, "id": 1}) == {"talk": ASKED, "id": 1}


@pytest.mark.parametrize(
    ("format", "roles", "row", "problem"),
    [
        (
            "sharegpt",
            CHAT,
            {"conversations": [{"from": "narrator", "value": "x"}]},
            "column 'conversations' holds a message of an unknown role 'narrator' (known are user, "
            "human, assistant, gpt, chatgpt, bing, bard, model, system, developer, tool, function, "
            "observation)",
        ),
        (
            "messages",
            CHAT,
            {"messages": []},
            "column 'messages' is an empty list, not a list of messages,",
        ),
        ("messages", CHAT, {}, "column 'messages' is null, not a list of messages,"),
        ("messages", CHAT, {"messages": ["Hi"]}, "column 'messages' holds a text as a message"),
        ("messages", CHAT, {"messages": "Hi"}, "column 'messages' is not JSON"),
        (
            "messages",
            CHAT,
            {"messages": [said("user", [{"type": "image"}])]},
            "column 'messages' holds a message whose content is not text",
        ),
        (
            "messages",
            PROMPT,
            {"messages": [*ASKED, *ASKED]},
            "column 'messages' is not one question and its answer, and longer conversations are for "
            "task chat,",
        ),
        (
            "messages",
            PROMPT,
            {"messages": ASKED[:1]},
            "column 'messages' is not one question and its answer, and longer conversations are for "
            "task chat,",
        ),
        (
            "sharegpt",
            CHAT,
            {"conversations": [{"from": "function_call", "value": "clock()"}]},
            "a function_call in column 'conversations' is not JSON",
        ),
        (
            "sharegpt",
            CHAT,
            {"conversations": [{"from": "function_call", "value": "{}"}]},
            "column 'conversations' holds a function_call without a name",
        ),
        ("alpaca", PROMPT, {"instruction": "Add"}, "column 'output' is missing"),
        (
            "alpaca",
            PROMPT,
            {**ALPACA, "history": [["a", "b"]]},
            "column 'history' holds earlier turns, which are for task chat,",
        ),
        (
            "alpaca",
            CHAT,
            {**ALPACA, "history": ["a"]},
            "column 'history' is not a list of pairs of question and answer",
        ),
        ("alpaca", PROMPT, {**ALPACA, "input": 3}, "column 'input' is a number, not text,"),
        (
            "squad",
            PROMPT,
            {**SPAN, "answers": []},
            "the question has no answer, which only task extract can learn,",
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answers": "Ada"},
            "column 'answers' is a text, not a list of answers,",
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answers": {"text": ["a"], "answer_start": []}},
            "column 'answers' has no lists `text` and `answer_start` of one length",
        ),
        (
            "squad",
            SPANS,
            {**SPAN, "answers": ["a", 1]},
            "column 'answers' holds something other than texts",
        ),
        ("squad", SPANS, {"question": "Who?", "answers": []}, "column 'context' is missing"),
    ],
)
def test_rows_without_the_form_of_their_format(
    format: FormatName, roles: Roles, row: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RowProblem) as caught:
        converted(format, roles, row)
    assert str(caught.value) == problem


@pytest.mark.parametrize(("source", "target", "problem"), [("fr", "en", "column 'fr' is missing")])
def test_a_row_without_a_language(source: str, target: str, problem: str) -> None:
    with pytest.raises(RowProblem) as caught:
        converted("parallel", PROMPT, {"translation": {"en": "x"}}, languages=(source, target))
    assert str(caught.value) == problem
