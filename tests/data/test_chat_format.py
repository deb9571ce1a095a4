from pathlib import Path
from typing import Any

import pytest

from peftune.data.chat_format import chat_template_text, probed_format
from peftune.data.section import DataSection
from peftune.errors import DataError
from tests.data.chat_templates import SHAPES

USER = "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content | trim }}\n"
REWRITES = (
    "data.chat_template: the template writes a finished conversation differently from the prompt "
    "that asks for it, so the answer cannot be told from the prompt. Give the path of a Jinja file "
    "that does not."
)


def section(template: str | None) -> DataSection:
    return DataSection(train="t.jsonl", chat_template=template)


def test_a_template_is_the_tokenizer_s_or_a_file(chat_tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text(USER, encoding="utf-8")
    own = chat_tokenizer.chat_template
    assert chat_template_text(section(None), chat_tokenizer) is None
    assert chat_template_text(section(None), chat_tokenizer, needed=True) == own
    assert chat_template_text(section("tokenizer"), chat_tokenizer) == own
    assert chat_template_text(section(str(file)), chat_tokenizer, needed=True) == USER


def test_templates_that_do_not_exist(tokenizer: Any, tmp_path: Path) -> None:
    for template, needed, message in (
        (
            "tokenizer",
            False,
            "data.chat_template: tokenizer, but a chat template is missing in the model's "
            "tokenizer. Give the path of a Jinja file, or remove the key to train on plain prompts.",
        ),
        (
            None,
            True,
            "data.chat_template: a chat template is missing in the model's tokenizer; give the path "
            "of a Jinja file, e.g. one that belongs to a model of the same family.",
        ),
        (
            str(tmp_path / "no.jinja"),
            False,
            f"data.chat_template: no such file: {tmp_path / 'no.jinja'}. Give the path of a Jinja "
            "file, or tokenizer for the model's own template.",
        ),
    ):
        with pytest.raises(DataError) as caught:
            chat_template_text(section(template), tokenizer, needed)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "lead_in", "tail"),
    [
        ("chatml", "", ""),
        ("qwen", "<think>\n\n</think>\n\n", ""),
        ("mistral", "", ""),
        ("phi", "", "</s>"),
    ],
)
def test_what_a_template_writes_around_answers(
    name: str, lead_in: str, tail: str, shapes_tokenizer: Any
) -> None:
    found = probed_format(shapes_tokenizer, SHAPES[name].template)
    assert (found.lead_in, found.closing, found.tail) == (lead_in, SHAPES[name].end, tail)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            USER + "{% else %}B:{{ m.content }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}A:{% endif %}",
            REWRITES,
        ),
        (
            USER + "{% else %}A:{{ m.content | upper }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}A:{% endif %}",
            REWRITES,
        ),
        (
            "{{ raise_exception('A system turn is needed.') }}",
            "data.chat_template: the template cannot be used: A system turn is needed.",
        ),
        (
            "{% for m in messages %}",
            "data.chat_template: the template cannot be used: Unexpected end of template. Jinja was "
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
        probed_format(chat_tokenizer, template)
    assert str(caught.value) == message
