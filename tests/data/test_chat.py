"""Answers in chat formats: what is learnt of a conversation, character for character."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftune.data.chat import Refused, render_chat
from peftune.data.chat_format import probed_format
from peftune.data.conversations import read_conversation
from peftune.data.encoders import Encoding
from peftune.data.encoders.causal import encode
from peftune.data.examples import Example
from peftune.data.gates import check, faulty_rows
from peftune.data.ledger import Ledger, ledger_batch
from peftune.data.rendering import Rendered
from peftune.data.report import SplitReport
from peftune.data.rows import Outcome
from peftune.data.section import DataSection, TrainOn
from peftune.errors import DataError
from tests.data.chat_templates import QWEN, SHAPES, SPECIAL, Shape
from tests.data.in_memory import in_memory

ANSWERS = [f"The answer {i}.{' And more,' * (i % 3)} assistant\nuser: no." for i in range(10)]
SYSTEM = {"role": "system", "content": "You are kind to the user."}


def turns(answers: list[str], system: bool = False) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [dict(SYSTEM)] if system else []
    for index, answer in enumerate(answers):
        messages.append({"role": "user", "content": f"What is {index}, assistant?"})
        messages.append({"role": "assistant", "content": answer})
    return messages


def talk(messages: Any, tools: Any = None, row: int = 0) -> Example:
    conversation = read_conversation(messages, tools)
    answer = conversation.answer
    return Example(row, conversation.question, answer, (answer,), "", (), conversation=conversation)


def rendered(example: Example, tokenizer: Any, template: str, train_on: TrainOn) -> Rendered:
    found = render_chat(example, probed_format(tokenizer, template), train_on)
    assert isinstance(found, Rendered), found
    return found


def refused(example: Example, tokenizer: Any, template: str, train_on: TrainOn) -> Refused:
    found = render_chat(example, probed_format(tokenizer, template), train_on)
    assert isinstance(found, Refused), found.learnt
    return found


def encoded(example: Example, tokenizer: Any, template: str, **keys: Any) -> Outcome:
    section = DataSection(train="t.jsonl", **keys)
    job = Encoding(tokenizer, section, "causal", chat=probed_format(tokenizer, template))
    [outcome] = encode([example], job)
    return outcome


def learnt_texts(outcome: Outcome, tokenizer: Any) -> list[str]:
    """The text of each run of learnt tokens."""
    [row] = outcome.rows
    runs: list[list[int]] = []
    for index, label in enumerate(row.labels):
        if label != -100 and (not runs or row.labels[index - 1] == -100):
            runs.append([])
        if label != -100:
            runs[-1].append(int(label))
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("train_on", ["assistant", "last"])
@pytest.mark.parametrize("name", SHAPES)
def test_ten_answers_and_their_ends_are_learnt(
    name: str, train_on: TrainOn, system: bool, shapes_tokenizer: Any
) -> None:
    """As text and as tokens: the answers with their end of turn, and nothing else."""
    shape = SHAPES[name]
    example = talk(turns(ANSWERS, system))
    wanted = [shape.learnt(answer) for answer in ANSWERS]
    if train_on == "last":
        wanted = wanted[-1:]
    elif system and not shape.system:
        found = encoded(example, shapes_tokenizer, shape.template)
        assert (found.fault, found.rows) == ("history", ())
        return
    row = rendered(example, shapes_tokenizer, shape.template, train_on)
    assert [row.text[start:end] for start, end in row.learnt] == wanted
    assert row.text == row.prompt + wanted[-1]
    outcome = encoded(example, shapes_tokenizer, shape.template, train_on=train_on)
    assert learnt_texts(outcome, shapes_tokenizer) == wanted
    prompt = shapes_tokenizer.decode(outcome.rows[0].prompt_ids)
    assert prompt == row.prompt
    assert outcome.end_id == shapes_tokenizer.convert_tokens_to_ids(shape.end)
    assert outcome.marked == (name == "marked")


@pytest.mark.parametrize("name", SHAPES)
def test_every_token_but_the_first_is_learnt_of_all(name: str, shapes_tokenizer: Any) -> None:
    outcome = encoded(
        talk(turns(ANSWERS, True)), shapes_tokenizer, SHAPES[name].template, train_on="all"
    )
    [row] = outcome.rows
    assert row.labels == (-100, *row.input_ids[1:])
    # Generation still starts where the last answer does.
    rest = shapes_tokenizer.decode(row.input_ids[len(row.prompt_ids) :])
    assert rest.startswith(SHAPES[name].learnt(ANSWERS[-1]))


WORDS = st.sampled_from(
    [
        "assistant",
        "user\n",
        "model\n",
        "<|im_end",
        "im_end|>",
        "<|",
        "[INST",
        "<think>",
        "</s",
        "\n\n",
    ]
)
PIECES = st.one_of(
    WORDS, st.text(st.characters(codec="utf-8", exclude_characters="<>["), max_size=9)
)
CONTENT = st.lists(PIECES, min_size=1, max_size=4).map("".join).filter(str.strip)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(sorted(SHAPES)), system=st.booleans())
def test_any_content_is_learnt_or_refused(
    data: st.DataObject, name: str, system: bool, shapes_tokenizer: Any
) -> None:
    """Blanks, other scripts, and words that look like the template's own."""
    shape = SHAPES[name]
    answers = data.draw(st.lists(CONTENT, min_size=1, max_size=4))
    messages = turns(answers, system and shape.system)
    for message in messages:
        if message["role"] == "user":
            message["content"] = data.draw(CONTENT)
    found = render_chat(
        talk(messages), probed_format(shapes_tokenizer, shape.template), "assistant"
    )
    if isinstance(found, Refused):
        written = "".join(str(message["content"]) for message in messages)
        # Qwen's template takes reasoning, and newlines in front of what follows it, out of answers.
        rewrites = name == "qwen" and (
            "think>" in written or any(answer.startswith("\n") for answer in answers)
        )
        assert rewrites or any(token in written for token in SPECIAL)
        return
    learnt = [found.text[start:end] for start, end in found.learnt]
    if name != "qwen":
        assert learnt == [shape.learnt(answer) for answer in answers]
    assert all(one.endswith(shape.end) and one.count(shape.end) == 1 for one in learnt)


def test_reasoning_that_becomes_history_leaves_the_last_answer(shapes_tokenizer: Any) -> None:
    thought = "<think>\nHm.\n</think>\n\n"
    example = talk(turns([f"{thought}{answer}" for answer in ANSWERS]), row=6)
    assert refused(example, shapes_tokenizer, QWEN, "assistant") == Refused(6, "history")
    row = rendered(example, shapes_tokenizer, QWEN, "last")
    assert [row.text[a:b] for a, b in row.learnt] == [f"{thought}{ANSWERS[-1]}<|im_end|>"]
    assert row.text.count("Hm.") == 1


def test_what_the_template_thinks_up_is_not_learnt(shapes_tokenizer: Any) -> None:
    row = rendered(talk(turns(["Yes"])), shapes_tokenizer, QWEN, "assistant")
    assert row.prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    assert [row.text[a:b] for a, b in row.learnt] == ["Yes<|im_end|>"]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_message_cannot_forge_a_border(name: str, role: str, shapes_tokenizer: Any) -> None:
    shape = SHAPES[name]
    messages = turns(ANSWERS[:2], system=True)
    next(one for one in messages if one["role"] == role)["content"] += f"{shape.end} Oh"
    found = refused(talk(messages), shapes_tokenizer, shape.template, "assistant")
    assert (found.fault, found.reason) == ("control_token", f"it is {shape.end}")


CALLS = [
    {"role": "user", "content": "Weather in Bonn and Ulm?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": args}}
            for args in ('{"city": "Bonn"}', {"city": "Ulm"})
        ],
    },
    {"role": "tool", "name": "weather", "tool_call_id": "1", "content": "wet"},
    {"role": "tool", "name": "weather", "tool_call_id": "2", "content": "dry"},
    {"role": "assistant", "content": "Wet and dry."},
]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "tools", [[TOOL], '[{"name": "weather", "parameters": {}}]', [None, TOOL][1:]]
)
def test_calls_of_tools_are_learnt_and_their_results_are_not(
    tools: Any, shapes_tokenizer: Any
) -> None:
    outcome = encoded(talk(CALLS, tools), shapes_tokenizer, SHAPES["tools"].template)
    assert learnt_texts(outcome, shapes_tokenizer) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call><|im_end|>',
        "Wet and dry.<|im_end|>",
    ]


def test_what_a_template_leaves_out_is_refused(shapes_tokenizer: Any) -> None:
    chatml = SHAPES["chatml"].template
    silent = "{% for m in messages if m.role != 'system' %}" + chatml.partition("%}")[2]
    found = refused(talk(turns(["Yes"], True)), shapes_tokenizer, silent, "assistant")
    assert (found.fault, found.reason) == ("template", "the system message is not in the text")
    found = refused(talk(turns(["Yes"]), [TOOL]), shapes_tokenizer, chatml, "assistant")
    assert (found.fault, found.reason) == ("template", "the tool weather is not in the text")
    found = refused(talk(CALLS), shapes_tokenizer, chatml, "assistant")
    assert (found.fault, found.reason[:9]) == ("template", "an answer")


def test_a_template_s_own_refusal_is_passed_on(shapes_tokenizer: Any) -> None:
    messages = [*turns(["Yes"]), {"role": "assistant", "content": "Or no"}]
    found = refused(talk(messages), shapes_tokenizer, SHAPES["gemma"].template, "assistant")
    assert found.fault == "template" and found.reason.startswith(
        "Conversation roles must alternate"
    )


def test_an_answer_without_an_end_is_refused_but_for_the_last(shapes_tokenizer: Any) -> None:
    endless = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    example = talk(turns(["Yes", "No"]))
    assert refused(example, shapes_tokenizer, endless, "assistant").fault == "no_end"
    outcome = encoded(example, shapes_tokenizer, endless, train_on="last")
    assert learnt_texts(outcome, shapes_tokenizer) == [" No</s>"]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("system", [False, True])
def test_the_oldest_turns_go_as_wholes(name: str, system: bool, shapes_tokenizer: Any) -> None:
    """What is left is the conversation that began later, with its system prompt."""
    shape, messages = SHAPES[name], turns(ANSWERS, system)
    later = talk([*messages[: int(system)], *messages[-4:]])
    keys: dict[str, Any] = {"train_on": "last" if not shape.system else None}
    expected = encoded(later, shapes_tokenizer, shape.template, **keys)
    for spare in (0, 5):
        limit = expected.tokens + spare
        keys |= {"max_length": limit, "overlong": "truncate_prompt"}
        found = encoded(talk(messages), shapes_tokenizer, shape.template, **keys)
        assert found.rows == expected.rows
        assert found.changed and found.fault is None


def test_the_last_turn_never_goes(shapes_tokenizer: Any) -> None:
    keys = {"max_length": 20, "overlong": "truncate_prompt"}
    example = talk(turns(ANSWERS))
    found = encoded(example, shapes_tokenizer, SHAPES["chatml"].template, **keys)
    assert (found.fault, found.rows) == ("overlong", ())
    keys["overlong"] = "drop"
    found = encoded(example, shapes_tokenizer, SHAPES["chatml"].template, **keys)
    assert (found.fault, found.rows, found.changed) == (None, (), True)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_prompt_with_its_completion_is_a_conversation_of_two(
    shape: Shape, shapes_tokenizer: Any
) -> None:
    prompt, completion = "  What is 1? Or user? \n", "One."
    written = Example(3, prompt, completion, (completion,), prompt, ((2, 12),))
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    one = rendered(written, shapes_tokenizer, shape.template, "completion")
    assert replace(one, fields=()) == rendered(
        talk(messages, row=3), shapes_tokenizer, shape.template, "assistant"
    )
    assert [one.text[start:end] for start, end in one.fields] == ["What is 1?"]


TOLD = turns(["Yes", "No"], system=True)


def gated(messages: list[Any], name: str, tokenizer: Any) -> SplitReport:
    """As a run does with a good conversation and those of `messages`."""
    chat = probed_format(tokenizer, SHAPES[name].template)
    section = DataSection(train="t.jsonl")
    examples = [talk(turns(["Yes"])), *(talk(one, row=1 + i) for i, one in enumerate(messages))]
    outcomes = encode(examples, Encoding(tokenizer, section, "causal", chat=chat))
    ledger = Ledger([ledger_batch(examples, outcomes)])
    table = in_memory("data.train", "t.jsonl", [{}] * len(examples))
    check(faulty_rows(ledger, section, "train", table, "truncate_prompt"), section)
    return SplitReport("train", ledger, (), 0, section.overlong, train_on="assistant")


@pytest.mark.parametrize(
    ("name", "messages", "message"),
    [
        (
            "chatml",
            turns(["Yes<|im_end|>"]),
            "data.columns: messages: a message holds a token with which the chat template ends or "
            "begins turns in 1 of 2 train rows; the first is t.jsonl:2, where it is <|im_end|>. Take "
            "such tokens out of the messages; the template writes them. To leave them out, set "
            "data.accept: {control_token: 0.5}.",
        ),
        (
            "gemma",
            [*TOLD, TOLD[-1]],
            "data.chat_template: the template refuses a conversation, or leaves a part of it out, in "
            "1 of 2 train rows; the first is t.jsonl:2, where Conversation roles must alternate "
            "user/assistant/user/assistant. Change these rows, or give the path of a Jinja file that "
            "can write them. To leave them out, set data.accept: {template: 0.5}.",
        ),
        (
            "mistral",
            TOLD,
            "data.chat_template: the template writes earlier turns differently from how the model "
            "answered them in 1 of 2 train rows; the first is t.jsonl:2. Set data.train_on: last to "
            "learn the last answer only, or give the path of a Jinja file that keeps earlier turns or "
            "marks answers with {% generation %}. To leave them out, set data.accept: {history: 0.5}.",
        ),
    ],
)
def test_conversations_that_stop_a_run(
    name: str, messages: Any, message: str, shapes_tokenizer: Any
) -> None:
    with pytest.raises(DataError) as caught:
        gated([messages], name, shapes_tokenizer)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "how"), [("marked", ", 2 with answers told by generation blocks"), ("chatml", "")]
)
def test_the_report_says_what_is_learnt_and_how(name: str, how: str, shapes_tokenizer: Any) -> None:
    report = str(gated([TOLD], name, shapes_tokenizer))
    assert report.startswith(f"train: 2 rows{how}; ")
    assert " tokens are learnt (assistant); longest row " in report
