"""An example as the single text that the tokenizer sees, with the borders that matter in it."""

from dataclasses import dataclass

from peftune.data.examples import Example
from peftune.data.template import Spans


@dataclass(frozen=True)
class Rendered:
    """One row as text. `text` starts with `prompt`; positions are characters of `text`."""

    row: int
    text: str
    prompt: str
    """What generation starts from."""
    learnt: Spans
    """The stretches to learn, in their order: the completion, the answers of a conversation, or the
    whole text."""
    fields: Spans
    """Column values inside the prompt, which may be shortened."""
    marked: bool = False
    """Whether the chat template's `{% generation %}` blocks told where the answers are."""


def join(prompt: str, completion: str) -> tuple[str, str]:
    """The two sides of the seam: blanks at it belong to the completion.

    Subword vocabularies write a blank into the word that follows it (" Tom" is one token), so a
    prompt that ends in a blank leaves a token behind that no training text has at this place.
    Blanks at the end of the prompt are therefore cut, and a completion gets one blank in front
    unless it starts with white space or the prompt ends in a line break or tab.
    """
    prompt = prompt.rstrip(" ")
    apart = not prompt or prompt[-1].isspace() or completion[0].isspace()
    return prompt, completion if apart else f" {completion}"


def render_plain(example: Example, whole: bool = False) -> Rendered:
    """Prompt and completion joined, or the text itself for a row without a prompt.

    `whole` learns the prompt as well.
    """
    prompt, completion = join(example.prompt, example.completion)
    fields = tuple((start, min(end, len(prompt))) for start, end in example.fields)
    text = prompt + completion
    start = 0 if whole else len(prompt)
    return Rendered(example.row, text, prompt, ((start, len(text)),), fields)
