"""A model's chat template: its text, what it renders, and what it writes around every answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from peftune.data.conversations import Conversation, Message, exchange
from peftune.data.section import DataSection
from peftune.data.template import Spans
from peftune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUESTION, ANSWER, NEXT = (f"peftune-{word}" for word in ("question", "answer", "next"))
BLOCKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What a template raises for a conversation it cannot write: its own `raise_exception`, or an
# operation on something that is not there.
REFUSALS = (TemplateError, TypeError, ValueError)


def chat_template_text(
    section: DataSection, tokenizer: "PreTrainedTokenizerFast", needed: bool = False
) -> str | None:
    """The Jinja text that `data.chat_template` stands for; None when the recipe has none.

    `needed` takes the tokenizer's own then. A model trained with it should be saved with it. Raises
    DataError.
    """
    if section.chat_template is None and not needed:
        return None
    if section.chat_template not in (None, "tokenizer"):
        return _template_file(section.chat_template)
    if not isinstance(tokenizer.chat_template, str):
        if needed:
            raise DataError(
                "data.chat_template: a chat template is missing in the model's tokenizer; give the "
                "path of a Jinja file, e.g. one that belongs to a model of the same family."
            )
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


@dataclass(frozen=True)
class ChatFormat:
    """A template with what was found out about it by rendering probes."""

    template: str
    named_tokens: Mapping[str, str]
    """The tokens that templates know by name, e.g. `bos_token`."""
    lead_in: str = ""
    """What the template puts between a generation prompt and the answer, e.g. an empty
    `<think></think>`; blanks and line breaks alone belong to the answer."""
    closing: str = ""
    """What ends an answer, as a rule one token."""
    tail: str = ""
    """What stands behind the last turn of a conversation, and behind no other."""
    before_user: int = 0
    """Characters before the text of a first user message."""
    control_tokens: frozenset[str] = frozenset()
    """Tokens with a meaning of their own: the special ones, and those that end an answer."""

    def render(
        self, conversations: Sequence[Sequence[Message]], tools: Sequence[Any], prompt: bool
    ) -> list[str]:
        """Each list of messages as text, with the generation prompt at the end where asked for.

        Raises one of REFUSALS.
        """
        return list(self._rendered(conversations, tools, add_generation_prompt=prompt)[0])

    def generation_blocks(self, conversation: Conversation) -> tuple[str, Spans]:
        """The whole conversation, and where the template's `{% generation %}` blocks stand in it."""
        messages, tools = conversation.messages, conversation.tools
        [text], [blocks] = self._rendered([messages], tools, return_assistant_tokens_mask=True)
        return text, tuple(blocks)

    def _rendered(
        self, conversations: Sequence[Sequence[Message]], tools: Sequence[Any], **options: bool
    ) -> Any:
        from transformers.utils import chat_template_utils

        # Its annotation promises a text, but it returns the texts and the blocks of each.
        render: Any = chat_template_utils.render_jinja_template
        return render(
            conversations=[list(messages) for messages in conversations],
            tools=list(tools) or None,
            chat_template=self.template,
            **options,
            **self.named_tokens,
        )

    @property
    def has_generation_blocks(self) -> bool:
        return BLOCKS.search(self.template) is not None


def probed_format(tokenizer: "PreTrainedTokenizerFast", template: str) -> ChatFormat:
    """The template with what it writes around a first question and its answer.

    Raises DataError for a template that cannot be used, or that changes the answer's own words.
    """
    bare = ChatFormat(template, tokenizer.special_tokens_map)
    asked = exchange(QUESTION, ANSWER).messages
    try:
        [prompt] = bare.render([asked[:1]], (), True)
        [text, longer] = bare.render([asked, (*asked, *exchange(NEXT, "").messages[:1])], (), False)
    except REFUSALS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"data.chat_template: the template cannot be used: {reason}.") from error
    lead_in, found, _ = text.removeprefix(prompt).partition(ANSWER)
    told = text.startswith(prompt) and found
    if not told and not bare.has_generation_blocks:
        raise DataError(
            "data.chat_template: the template writes a finished conversation differently from the "
            "prompt that asks for it, so the answer cannot be told from the prompt. Give the path "
            "of a Jinja file that does not."
        )
    behind, behind_earlier = text.partition(ANSWER)[2], longer.partition(ANSWER)[2]
    closing, tail = _closing_and_tail(behind, behind_earlier, tokenizer)
    return ChatFormat(
        template=template,
        named_tokens=tokenizer.special_tokens_map,
        lead_in=lead_in.rstrip(" ") if told and lead_in.strip() else "",
        closing=closing.strip(),
        tail=tail,
        before_user=len(prompt.partition(QUESTION)[0]),
        control_tokens=_control_tokens(tokenizer, closing),
    )


def _closing_and_tail(
    behind: str, behind_earlier: str, tokenizer: "PreTrainedTokenizerFast"
) -> tuple[str, str]:
    """What stands behind the last answer, cut where it stops being what stands behind any."""
    pairs = zip(behind, behind_earlier, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    # Two special tokens may begin with the same characters; the border lies between tokens.
    encoding = tokenizer(behind, add_special_tokens=False, verbose=False).encodings[0]
    border = max((end for _, end in encoding.offsets if end <= shared), default=0)
    return behind[:border], behind[border:]


def _control_tokens(tokenizer: "PreTrainedTokenizerFast", closing: str) -> frozenset[str]:
    return frozenset(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in closing and token.content.strip())
    )
