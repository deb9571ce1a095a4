from pathlib import Path
from typing import Any

import pytest

from peftune.data.chat import chat_template_text, render_chats
from peftune.data.examples import Example
from peftune.data.section import DataSection
from peftune.errors import DataError

USER = "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content | trim }}\n"
THINKING = (
    USER + "{% else %}A:<think></think>{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


def section(template: str | None) -> DataSection:
    return DataSection(train="t.jsonl", chat_template=template)


def example(prompt: str, completion: str, *fields: tuple[int, int]) -> Example:
    return Example(6, prompt, completion, (completion,), prompt, fields)


def test_a_template_is_the_tokenizer_s_or_a_file(chat_tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text(THINKING, encoding="utf-8")
    assert chat_template_text(section(None), chat_tokenizer) is None
    assert chat_template_text(section("tokenizer"), chat_tokenizer) == chat_tokenizer.chat_template
    assert chat_template_text(section(str(file)), chat_tokenizer) == THINKING


def test_templates_that_do_not_exist(tokenizer: Any, tmp_path: Path) -> None:
    for template, message in (
        (
            "tokenizer",
            "data.chat_template: tokenizer, but a chat template is missing in the model's "
            "tokenizer. "
            "Give the path of a Jinja file, or remove the key to train on plain prompts.",
        ),
        (
            str(tmp_path / "no.jinja"),
            f"data.chat_template: no such file: {tmp_path / 'no.jinja'}. Give the path of a Jinja "
            "file, or tokenizer for the model's own template.",
        ),
    ):
        with pytest.raises(DataError) as caught:
            chat_template_text(section(template), tokenizer)
        assert str(caught.value) == message


def test_the_answer_and_its_end_of_turn_are_learnt(chat_tokenizer: Any) -> None:
    template = chat_tokenizer.chat_template
    [row] = render_chats([example("ask", "tell", (0, 3))], chat_tokenizer, template)
    assert row.prompt == "<|im_start|>user\nask<|im_end|>\n<|im_start|>assistant\n"
    assert row.text[row.learnt_from :] == "tell<|im_end|>"
    assert [row.text[start:end] for start, end in row.fields] == ["ask"]


def test_what_the_template_thinks_up_is_not_learnt(chat_tokenizer: Any) -> None:
    rows = [example("a", "think"), example("a", "<think></think>b")]
    first, second = render_chats(rows, chat_tokenizer, THINKING)
    assert first.prompt == "U:a\nA:"
    assert first.text[first.learnt_from :] == "think<|im_end|>"
    assert second.text[second.learnt_from :] == "<think></think>b<|im_end|>"


def test_fields_follow_the_trimmed_prompt(chat_tokenizer: Any) -> None:
    prompt = "  one two \n"
    [row] = render_chats([example(prompt, "x", (0, 5), (6, 11))], chat_tokenizer, THINKING)
    assert [row.text[start:end] for start, end in row.fields] == ["one", "two"]


@pytest.mark.parametrize("prompt", ["user", "er", "im_start"])
def test_fields_are_not_mistaken_for_the_template_s_words(prompt: str, chat_tokenizer: Any) -> None:
    template = chat_tokenizer.chat_template
    [row] = render_chats([example(prompt, "x", (0, len(prompt)))], chat_tokenizer, template)
    start = len("<|im_start|>user\n")
    assert row.fields == ((start, start + len(prompt)),)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            USER + "{% else %}B:{{ m.content }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}A:{% endif %}",
            "data.chat_template: the template writes a finished conversation differently from the "
            "prompt that asks for it (row 7), so the answer cannot be told from the prompt. Give "
            "the path of a Jinja file that does not.",
        ),
        (
            USER + "{% else %}A:{{ m.content | upper }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}A:{% endif %}",
            "data.chat_template: the template writes a finished conversation differently from the "
            "prompt that asks for it (row 7), so the answer cannot be told from the prompt. Give "
            "the path of a Jinja file that does not.",
        ),
        (
            "{{ raise_exception('A system turn is needed.') }}",
            "data.chat_template: the template cannot be used: A system turn is needed.",
        ),
        (
            "{% for m in messages %}",
            "data.chat_template: the template cannot be used: Unexpected end of template. Jinja "
            "was "
            "looking for the following tags: 'endfor' or 'else'. The innermost block that needs to "
            "be closed is 'for'.",
        ),
        (
            "{{ messages.__class__.__mro__ }}",
            "data.chat_template: the template cannot be used: access to attribute '__class__' of "
            "'list' object is unsafe.",
        ),
    ],
)
def test_templates_that_cannot_be_used(chat_tokenizer: Any, template: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        render_chats([example("ask", "tell")], chat_tokenizer, template)
    assert str(caught.value) == message
