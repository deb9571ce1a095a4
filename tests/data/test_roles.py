from typing import Any

import pytest

from peftune.data.roles import check_roles, prompt_template
from peftune.data.section import DataSection
from peftune.errors import DataError

PROMPT = ("prompt", "completion")
TEXT = ("text",)
CHAT = ("messages",)
TAGS = ("words", "tags")
SPANS = ("context", "question", "answers")


def section(**keys: Any) -> DataSection:
    return DataSection(train="rows.jsonl", **keys)


@pytest.mark.parametrize(
    ("roles", "keys", "message"),
    [
        (
            PROMPT,
            {"columns": {"promt": "dialogue"}},
            "data.columns: unknown role 'promt'. Did you mean prompt? The roles of this task are: "
            "prompt, completion, references.",
        ),
        (
            TEXT,
            {"columns": {"completion": "body"}},
            "data.columns: unknown role 'completion'. The roles of this task are: text.",
        ),
        (
            PROMPT,
            {"overlong": "split"},
            "data.overlong: split would cut prompts and completions apart; it is for task text. "
            "Use truncate_prompt, drop or error.",
        ),
        (
            TEXT,
            {"overlong": "truncate_prompt"},
            "data.overlong: truncate_prompt needs a prompt, and this task learns plain text. "
            "Use split, drop or error.",
        ),
        (
            CHAT,
            {"overlong": "split"},
            "data.overlong: split would cut conversations apart; it is for task text. Use "
            "truncate_prompt, which drops the oldest turns, drop or error.",
        ),
        (
            CHAT,
            {"train_on": "completion"},
            "data.train_on: completion is not a part of this task's rows; use assistant or last or "
            "all.",
        ),
        (
            PROMPT,
            {"train_on": "last"},
            "data.train_on: last is not a part of this task's rows; use completion or all.",
        ),
        (
            PROMPT,
            {"prompt_template": "{dialogue} {summary}", "columns": {"completion": "summary"}},
            "data.prompt_template: {summary} holds the answer, which must not stand in the prompt.",
        ),
        (
            TAGS,
            {"overlong": "truncate_prompt"},
            "data.overlong: truncate_prompt would lose words and their tags. Use split, drop or "
            "error.",
        ),
        (
            SPANS,
            {"max_length": 140},
            "data.doc_stride: 128 leaves no room in windows of data.max_length: 140 tokens; lower "
            "it, or raise data.max_length.",
        ),
        (
            SPANS,
            {"columns": {"label": "x"}},
            "data.columns: unknown role 'label'. The roles of this task are: context, question, "
            "answers, answer, answer_start.",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused(
    roles: tuple[str, ...], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        check_roles(section(**keys), roles)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("roles", "keys"),
    [
        (PROMPT, {"overlong": "truncate_prompt", "columns": {"references": "all"}}),
        (PROMPT, {"prompt_template": "{dialogue}", "chat_template": "tokenizer"}),
        (TEXT, {"overlong": "split", "columns": {"text": "body"}}),
        (CHAT, {"overlong": "truncate_prompt", "train_on": "last"}),
        (CHAT, {"columns": {"messages": "turns", "tools": "functions"}}),
    ],
)
def test_keys_that_fit_pass(roles: tuple[str, ...], keys: dict[str, Any]) -> None:
    check_roles(section(**keys), roles)


def test_the_recipe_s_template_comes_before_the_task_s() -> None:
    for keys, default, expected in (
        ({"prompt_template": "{a}"}, "{prompt} end", ("a",)),
        ({}, "{prompt} end", ("prompt",)),
        ({}, None, ("prompt",)),
    ):
        template = prompt_template(section(**keys), PROMPT, default)
        assert template is not None and template.names == expected
    assert prompt_template(section(), TEXT, None) is None
