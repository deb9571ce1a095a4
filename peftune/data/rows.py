"""One row as the model gets it, and what became of the example it was made from."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

IGNORED = -100
"""The label of a token that is not learnt; torch.nn.functional.cross_entropy skips it too."""

Fault = Literal[
    "control_token",
    "template",
    "history",
    "no_end",
    "no_target",
    "unknown_label",
    "untokenized_word",
    "long_question",
    "misplaced_answer",
    "cut_answer",
    "overlong",
]
"""Why nothing can be learnt from an example. In chat format: a message holds a token of the template;
the template refuses the conversation or leaves a part out; it writes earlier answers differently; an
answer has no end-of-turn token. Tags and answers: a word has no tokens; a question leaves no room for
its context, or its answer stands elsewhere or is longer than what two windows share. Everywhere: the
target has no tokens, the label is none of those that are learnt, or the example does not fit."""


@dataclass(frozen=True)
class EncodedRow:
    """One row for the model."""

    input_ids: tuple[int, ...]
    labels: tuple[float, ...]
    """What is learnt; -100 where nothing is. Causal: one for each of `input_ids`, and never one at
    position 0. Seq2seq: the target's tokens. Labels: the class, 0 or 1 for each label, or the value.
    Tags: one for each of `input_ids`. Span: the indices of its first and its last token."""
    prompt_ids: tuple[int, ...]
    """What generation starts from; empty for plain text."""
    row: int
    """Position in the source of the split, from 0; windows of one row share it."""
    token_type_ids: tuple[int, ...] = ()
    """Which of two texts a token belongs to, for tokenizers that tell."""


class Rows(Protocol):
    """Rows of a split, on disk or in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> EncodedRow: ...

    def lengths(self) -> np.ndarray:
        """Tokens and labels of each row, int64 (rows, 2)."""


class RowTuple(tuple[EncodedRow, ...]):
    """Rows in memory."""

    def lengths(self) -> np.ndarray:
        sizes = [(len(row.input_ids), len(row.labels)) for row in self]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Outcome:
    """What became of one example."""

    row: int
    """Position in the source of the split, from 0."""
    rows: tuple[EncodedRow, ...]
    """Empty when there is a fault, or when the policy for over-long rows dropped it."""
    tokens: int
    """Of the example, or of its longer side, before any policy."""
    targets: int
    """Learnt tokens or labels before any policy."""
    kept: int = 0
    """Tokens of its rows, on both sides."""
    fault: Fault | None = None
    reason: str = ""
    """What exactly is wrong, where a fault has more than one cause."""
    changed: bool = False
    """Whether `data.overlong` dropped it, shortened it or cut it into windows."""
    end_id: int | None = None
    """The token that closes it: the end of sequence, or the chat template's end of turn."""
    marked: bool = False
    """Whether the chat template's `{% generation %}` blocks told where the answers are."""
    unknown: int = 0
    """Tokens that stand for characters the tokenizer does not know."""
