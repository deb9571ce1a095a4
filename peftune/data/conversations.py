"""Conversations: what a row of messages must be like, and how it gets shorter."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
# What chat templates read of a message; anything else that a data set keeps there has no place in
# the text.
FIELDS = ("role", "content", "reasoning_content", "tool_calls", "name", "tool_call_id")


@dataclass(frozen=True)
class Conversation:
    """Messages in the form that chat templates take, and the tools that the model may call."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def answers(self) -> tuple[int, ...]:
        """Positions of the assistant's messages."""
        return tuple(i for i, one in enumerate(self.messages) if one["role"] == "assistant")

    @property
    def answer(self) -> str:
        """The text of the last message; a call of tools as JSON."""
        last = self.messages[-1]
        if last.get("content"):
            return str(last["content"])
        return json.dumps(last["tool_calls"], ensure_ascii=False)

    @property
    def question(self) -> str:
        """Everything before the last message, a line for each message."""
        return "\n".join(f"{m['role']}: {m.get('content', '')}" for m in self.messages[:-1])


def exchange(prompt: str, completion: str) -> Conversation:
    """One user turn and its answer."""
    user, assistant = ("user", prompt), ("assistant", completion)
    return Conversation(tuple({"role": role, "content": text} for role, text in (user, assistant)))


def read_conversation(messages: Any, tools: Any = None) -> Conversation:
    """The conversation in a row.

    `messages` are role and content, with `tool_calls`, `name`, `tool_call_id` and
    `reasoning_content` where they apply; `tools` are JSON schemas of functions. Both may be JSON
    text, as may be the arguments of a call. A system message comes first, and an assistant's last.
    Raises ValueError that says what is wrong.
    """
    read = tuple(_message(one) for one in _list(messages, "messages"))
    _check_order(read)
    return Conversation(read, read_tools(tools))


def read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a row, none for an empty value. Raises ValueError."""
    return tuple(_tool(one) for one in _list(tools or [], "tools"))


def _list(value: Any, name: str) -> Sequence[Any]:
    value = _parsed(value, name) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is no list")
    return value


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(f"{name} is text that is no JSON") from None


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES:
        role = value.get("role") if isinstance(value, Mapping) else value
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    # Tables fill what a message does not have with null.
    message = {key: value[key] for key in FIELDS if value.get(key) is not None}
    if "tool_calls" in message:
        calls = [_call(one) for one in _list(message.pop("tool_calls"), "tool_calls")]
        message |= {"tool_calls": calls} if calls else {}
    _check_content(message)
    return message


def _check_content(message: Message) -> None:
    role, content = message["role"], message.get("content", "")
    texts = (content, message.get("reasoning_content", ""), message.get("name", ""))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the content of a {role} message is no text")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(f"a {role} message holds half a surrogate pair") from None
    if "tool_calls" in message and role != "assistant":
        raise ValueError(f"a {role} message calls tools")
    if role in ("user", "assistant") and not content.strip() and "tool_calls" not in message:
        raise ValueError(f"a {role} message is blank")
    # Many templates add to the content of a call what they do not add to a missing one.
    message["content"] = content


def _call(value: Any) -> dict[str, Any]:
    """`{"type": "function", "function": {"name", "arguments"}}`, the arguments as an object."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call has no name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        # Templates write arguments as JSON; text would be quoted a second time.
        arguments = _parsed(arguments or "{}", "arguments of a tool call")
    if not isinstance(arguments, Mapping):
        raise ValueError("the arguments of a tool call are no object")
    call = {
        "type": "function",
        "function": {"name": function["name"], "arguments": dict(arguments)},
    }
    return {"id": value["id"], **call} if value.get("id") else call


def _tool(value: Any) -> dict[str, Any]:
    value = _parsed(value, "a tool") if isinstance(value, str) else value
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("a tool is no JSON schema of a function with a name")
    return {"type": "function", "function": dict(function)}


def _check_order(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("there are no messages")
    if not any(message["role"] == "user" for message in messages):
        raise ValueError("there is no user message")
    if any(message["role"] == "system" for message in messages[1:]):
        raise ValueError("a system message is not the first")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"the last message is the {messages[-1]['role']}'s, not the assistant's")


def without_oldest(conversation: Conversation, turns: int) -> Conversation:
    """The conversation without its first `turns` turns; a system message stays.

    A turn is a user's message and all that follows it up to the next.
    """
    messages = conversation.messages
    system = 1 if messages[0]["role"] == "system" else 0
    kept = messages[_turn_starts(conversation)[turns] :]
    return Conversation((*messages[:system], *kept), conversation.tools)


def turns(conversation: Conversation) -> int:
    """How many turns a conversation has."""
    return len(_turn_starts(conversation))


def _turn_starts(conversation: Conversation) -> list[int]:
    """Positions where turns begin; an assistant's greeting is a turn of its own."""
    messages = conversation.messages
    first = 1 if messages[0]["role"] == "system" else 0
    return [
        i for i, one in enumerate(messages) if i == first or (i > first and one["role"] == "user")
    ]
