"""Conversations in a model's own chat format, with the borders of the answers in it."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from peftune.data.chat_format import REFUSALS, ChatFormat
from peftune.data.conversations import Conversation, Message, exchange
from peftune.data.examples import Example
from peftune.data.rendering import Rendered
from peftune.data.rows import Fault
from peftune.data.section import TrainOn
from peftune.data.template import Spans

Span = tuple[int, int]


class LeftOut(ValueError):
    """The template does not write everything that a conversation holds."""


@dataclass(frozen=True)
class Refused:
    """Why nothing can be learnt from an example."""

    row: int
    fault: Fault
    reason: str = ""


def render_chat(example: Example, chat: ChatFormat, train_on: TrainOn) -> Rendered | Refused:
    """The conversation as one text with the stretches to learn, or why it cannot be learnt from.

    With P the messages before an answer plus the generation prompt, Q the messages up to the
    answer and T the whole conversation, Q and T must both start with P and go on alike: with the
    answer and its end of turn, which is what is learnt. `train_on: last` asks this of the last
    answer only. A template that writes earlier turns differently can mark its answers with
    `{% generation %}` instead. What the template itself puts before every answer (an empty
    `<think></think>`) is not learnt, and neither is white space behind the end of a turn: nothing
    else could follow there. A message that holds a token which the template uses to end a turn
    would forge a border, so such a row is a fault.
    """
    conversation = example.conversation or exchange(example.prompt, example.completion)
    problem = _problem(conversation, chat)
    if problem is not None:
        return Refused(example.row, *problem)
    try:
        located = _located(conversation, chat, train_on)
        if located is not None:
            _require_everything(conversation, located.text)
    except REFUSALS as error:
        return Refused(example.row, "template", " ".join(str(error).split()).rstrip("."))
    if located is None:
        return Refused(example.row, "history")
    if not _ended(located, chat):
        return Refused(example.row, "no_end")
    return Rendered(
        row=example.row,
        text=located.text[: located.learnt[-1][1]],
        prompt=located.prompt,
        learnt=located.learnt,
        fields=_fields_in_chat(example, located.prompt, chat.before_user),
        marked=located.marked,
    )


def _problem(conversation: Conversation, chat: ChatFormat) -> tuple[Fault, str] | None:
    written = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False)
    forged = _any_of(chat.control_tokens).search(written)
    return ("control_token", f"it is {forged[0]}") if forged else None


@dataclass(frozen=True)
class Located:
    """A conversation as text, the stretches to learn in it, and what the last answer follows."""

    text: str
    learnt: Spans
    prompt: str
    marked: bool = False


def _located(conversation: Conversation, chat: ChatFormat, train_on: TrainOn) -> Located | None:
    messages, tools = conversation.messages, conversation.tools
    answers = conversation.answers
    picked = answers[-1:] if train_on in ("last", "all") else answers
    prompts = chat.render([messages[:i] for i in picked], tools, True)
    wholes = chat.render([messages[: i + 1] for i in picked], tools, False)
    text = wholes[-1]
    found = [
        _stretch(text, prompt, whole, messages[i], chat)
        for prompt, whole, i in zip(prompts, wholes, picked, strict=True)
    ]
    learnt = tuple(stretch for stretch in found if stretch)
    if train_on == "all":
        prompt = text[: learnt[0][0]] if learnt else prompts[-1]
        return Located(text, ((0, len(text.rstrip())),), prompt)
    if len(learnt) == len(picked):
        return Located(text, learnt, text[: learnt[-1][0]])
    if not chat.has_generation_blocks:
        return None
    text, marked = _marked(conversation, chat)
    learnt = marked[-len(picked) :]
    return Located(text, learnt, text[: learnt[-1][0]], marked=True) if learnt else None


def _stretch(text: str, prompt: str, whole: str, message: Message, chat: ChatFormat) -> Span | None:
    """Where the answer of `whole`, which ends with it, stands in the text of all messages."""
    if not whole.startswith(prompt) or not text.startswith(prompt):
        return None
    answer = whole[len(prompt) :].removeprefix(chat.lead_in).removesuffix(chat.tail).rstrip()
    if not _holds(answer, message):
        raise LeftOut("an answer, or a call of a tool, is not in the text as a whole")
    start = len(prompt)
    if text.startswith(chat.lead_in + answer, start):
        start += len(chat.lead_in)
    return (start, start + len(answer)) if text.startswith(answer, start) else None


def _marked(conversation: Conversation, chat: ChatFormat) -> tuple[str, Spans]:
    """The whole text and its generation blocks, each to the end of its turn.

    None of them if they are not the answers.
    """
    text, blocks = chat.generation_blocks(conversation)
    answers = [conversation.messages[i] for i in conversation.answers]
    if len(blocks) != len(answers):
        return text, ()
    learnt = []
    for (start, end), message in zip(blocks, answers, strict=True):
        if not _holds(text[start:end], message):
            return text, ()
        closed = chat.closing and text.startswith(chat.closing, end)
        learnt.append((start, end + len(chat.closing) if closed else len(text[:end].rstrip())))
    return text, tuple(learnt)


def _holds(text: str, message: Message) -> bool:
    """Whether the template wrote the whole message; white space may differ."""
    parts = [message.get("reasoning_content", ""), message.get("content", "")]
    parts += [call["function"]["name"] for call in message.get("tool_calls", ())]
    squeezed = _squeezed(text)
    return all(_squeezed(part) in squeezed for part in parts)


def _require_everything(conversation: Conversation, text: str) -> None:
    """Raise LeftOut for a system or user message, or a tool, that is not in the text.

    Answers are looked at one by one; what a tool gave back may be written as JSON.
    """
    squeezed = _squeezed(text)
    parts = [
        (f"the {message['role']} message", message["content"])
        for message in conversation.messages
        if message["role"] in ("system", "user")
    ]
    tools = [tool["function"]["name"] for tool in conversation.tools]
    parts += [(f"the tool {name}", name) for name in tools]
    for what, part in parts:
        if _squeezed(part) not in squeezed:
            raise LeftOut(f"{what} is not in the text")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _ended(located: Located, chat: ChatFormat) -> bool:
    """Whether every answer but the last has an end token; the last can be given one."""
    ends = tuple(chat.control_tokens)
    return all(located.text.endswith(ends, start, end) for start, end in located.learnt[:-1])


@lru_cache
def _any_of(tokens: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _fields_in_chat(example: Example, prompt: str, before_user: int) -> Spans:
    """The spans of the column values moved to where the template put the user's text."""
    content = example.prompt.strip()
    # The template's own words may hold the same text, as a role header holds "user".
    start = prompt.find(content, before_user)
    if start < 0:
        return ()
    shift = start - example.prompt.find(content)
    last = start + len(content)
    return tuple((max(a + shift, start), min(b + shift, last)) for a, b in example.fields)
