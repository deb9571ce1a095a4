"""What every encoder is told."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peftune.data.chat_format import ChatFormat
from peftune.data.section import DataSection
from peftune.objectives import ObjectiveName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Encoding:
    """How the examples of a run become tokens."""

    tokenizer: "PreTrainedTokenizerFast"
    section: DataSection
    objective: ObjectiveName
    chat: ChatFormat | None = None
    """The chat template that writes the rows, where there is one."""
    labels: tuple[str, ...] = ()
    """Names of the labels in the order of their ids."""
    closing_id: int | None = None
    """Closes each row that its tokenizer leaves open: of labels, for a head that reads the score at
    the end token, and of text with hidden parts for an encoder-decoder."""
    prompts: bool = True
    """Whether rows must know what generation starts from."""

    @cached_property
    def unknown_id(self) -> int | None:
        """What stands for characters the tokenizer does not know; None where nothing else does.

        Byte-level vocabularies know all characters and often name their end token here.
        """
        unknown = self.tokenizer.unk_token_id
        others = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        return None if unknown in others else unknown

    @cached_property
    def end_id(self) -> Any:
        return self.tokenizer.eos_token_id
