"""Examples as one user turn and one assistant turn in a model's own chat format."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from peftune.data.examples import Example
from peftune.data.rendering import Rendered
from peftune.data.section import DataSection
from peftune.data.template import Spans
from peftune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = "peftune-probe"
Turns = list[dict[str, str]]


def chat_template_text(section: DataSection, tokenizer: "PreTrainedTokenizerFast") -> str | None:
    """The Jinja text that `data.chat_template` stands for; None when the recipe has none.

    A model trained with it should be saved with it. Raises DataError.
    """
    if section.chat_template is None:
        return None
    if section.chat_template != "tokenizer":
        return _template_file(section.chat_template)
    if not isinstance(tokenizer.chat_template, str):
        raise DataError(
            "data.chat_template: tokenizer, but a chat template is missing in the model's "
            "tokenizer. Give the path of a Jinja file, or remove the key to train on plain prompts."
        )
    return tokenizer.chat_template


def _template_file(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(
            f"data.chat_template: no such file: {path.absolute()}. Give the path of a Jinja file, "
            "or tokenizer for the model's own template."
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"data.chat_template: {path} is not UTF-8 text.") from error


def render_chats(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerFast", template: str
) -> list[Rendered]:
    """Render each example twice, without and with its answer, and mark where the answer begins.

    With P the user turn plus generation prompt and T the whole conversation, T must start with P;
    what T adds is learnt: the answer and its end-of-turn token. White space that the template puts
    behind the end of the turn is left out: nothing follows it, so it could only be learnt as text
    to produce after the end. What the template itself puts between P and every answer (an empty
    `<think></think>`) is kept and not learnt. Raises DataError.
    """
    prompts = [_render(_turns(example.prompt), tokenizer, template) for example in examples]
    texts = [
        _render(_turns(example.prompt, example.completion), tokenizer, template)
        for example in examples
    ]
    before_user, lead_in = _surroundings(tokenizer, template)
    return [
        Rendered(
            row=example.row,
            text=text.rstrip(),
            prompt=prompt,
            learnt_from=_learnt_from(example, prompt, text.rstrip(), lead_in),
            fields=_fields_in_chat(example, prompt, before_user),
        )
        for example, prompt, text in zip(examples, prompts, texts, strict=True)
    ]


def _turns(prompt: str, completion: str | None = None) -> Turns:
    user = {"role": "user", "content": prompt}
    if completion is None:
        return [user]
    return [user, {"role": "assistant", "content": completion}]


def _render(turns: Turns, tokenizer: "PreTrainedTokenizerFast", template: str) -> str:
    try:
        rendered = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=len(turns) == 1
        )
    except TemplateError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"data.chat_template: the template cannot be used: {reason}.") from error
    assert isinstance(rendered, str)
    return rendered


def _surroundings(tokenizer: "PreTrainedTokenizerFast", template: str) -> tuple[int, str]:
    """How many characters stand before the user's text, and what between P and any answer."""
    prompt = _render(_turns(PROBE), tokenizer, template)
    answer = _render(_turns(PROBE, PROBE), tokenizer, template).removeprefix(prompt)
    return len(prompt.partition(PROBE)[0]), answer.partition(PROBE)[0]


def _learnt_from(example: Example, prompt: str, text: str, lead_in: str) -> int:
    answer = text.removeprefix(prompt)
    if not text.startswith(prompt) or example.completion.strip() not in answer:
        raise DataError(
            "data.chat_template: the template writes a finished conversation differently from the "
            f"prompt that asks for it (row {example.row + 1}), so the answer cannot be told from "
            "the prompt. Give the path of a Jinja file that does not."
        )
    return len(prompt) + (len(lead_in) if answer.startswith(lead_in) else 0)


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
