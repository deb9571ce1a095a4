import json
from typing import Any

import pytest

from peftune.data.conversations import read_conversation, turns, without_oldest

ASK = {"role": "user", "content": "Hi"}
TELL = {"role": "assistant", "content": "Ho"}
SYSTEM = {"role": "system", "content": "Be kind."}


def calling(function: Any) -> list[dict[str, Any]]:
    return [ASK, {"role": "assistant", "content": None, "tool_calls": [function]}]


def test_messages_are_reduced_to_what_templates_read() -> None:
    messages = [{**SYSTEM, "name": None}, {**ASK, "id": 7}, {**TELL, "tool_calls": []}]
    assert read_conversation(messages).messages == (SYSTEM, ASK, TELL)
    assert read_conversation(json.dumps(messages)) == read_conversation(messages)


@pytest.mark.parametrize(
    "call",
    [
        {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"function": {"name": "f", "arguments": {"a": 1}}},
        {"name": "f", "arguments": {"a": 1}},
    ],
)
def test_calls_have_one_form(call: Any) -> None:
    found = read_conversation(calling(call))
    assert found.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    ]
    assert json.loads(found.answer) == found.messages[1]["tool_calls"]
    assert found.messages[1]["content"] == ""


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "messages is no list"),
        ("Hi", "messages is text that is no JSON"),
        ([], "there are no messages"),
        (["Hi"], "role 'Hi' is not one of system, user, assistant, tool"),
        ([{"role": "human", "content": "Hi"}, TELL], "role 'human' is not one of system, user, "),
        (
            [{"from": "human", "value": "Hi"}],
            "role None is not one of system, user, assistant, tool",
        ),
        ([{"role": "user", "content": ["Hi"]}, TELL], "the content of a user message is no text"),
        ([{"role": "user", "content": " \n"}, TELL], "a user message is blank"),
        ([ASK, {"role": "assistant"}], "a assistant message is blank"),
        (
            [{"role": "user", "content": "\ud800"}, TELL],
            "a user message holds half a surrogate pair",
        ),
        ([ASK, SYSTEM, TELL], "a system message is not the first"),
        ([ASK, TELL, ASK], "the last message is the user's, not the assistant's"),
        ([SYSTEM, TELL], "there is no user message"),
        ([{**ASK, "tool_calls": [{"name": "f"}]}, TELL], "a user message calls tools"),
        (calling({"function": {"arguments": {}}}), "a tool call has no name"),
        (calling("f"), "a tool call has no name"),
        (
            calling({"name": "f", "arguments": "a=1"}),
            "arguments of a tool call is text that is no ",
        ),
        (calling({"name": "f", "arguments": [1]}), "the arguments of a tool call are no object"),
    ],
)
def test_rows_that_are_no_conversation(messages: Any, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_conversation(messages)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ("weather", "tools is text that is no JSON"),
        ({"name": "weather"}, "tools is no list"),
        ([{"description": "weather"}], "a tool is no JSON schema of a function with a name"),
    ],
)
def test_tools_that_are_no_schemas(tools: Any, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_conversation([ASK, TELL], tools)
    assert str(caught.value) == problem


def test_turns_go_from_the_oldest_and_the_system_prompt_stays() -> None:
    other = {"role": "user", "content": "More"}
    tool = {"role": "tool", "content": "1"}
    whole = read_conversation([SYSTEM, TELL, ASK, TELL, tool, TELL, other, TELL])
    assert turns(whole) == 3
    assert without_oldest(whole, 0) == whole
    assert without_oldest(whole, 1).messages == (SYSTEM, ASK, TELL, tool, TELL, other, TELL)
    assert without_oldest(whole, 2).messages == (SYSTEM, other, TELL)
