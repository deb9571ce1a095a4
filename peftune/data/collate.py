"""Encoded rows become one batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftune.data.corruption import Corruption
from peftune.data.rows import IGNORED, EncodedRow, Rows
from peftune.objectives import ObjectiveName

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
NOT_LEARNT = float("nan")
"""The label of a score that is not learnt: no number could stand for it."""


@dataclass(frozen=True)
class Batching:
    """How rows of one objective become tensors."""

    objective: ObjectiveName
    pad_token_id: int
    decoder_start_token_id: int | None = None
    """What a decoder reads first. None where it reads its own last token, a language code."""
    corruption: Corruption | None = None
    """What is hidden of each row before it is read."""

    def drawn(self, row: EncodedRow, index: int, step: int | None = None) -> EncodedRow:
        """`row`, at position `index` of its split, as it is read in a step from 0; None: held out.

        Only `corruption` makes a difference; the answer does not depend on the layout of devices.
        """
        return row if self.corruption is None else self.corruption.apply(row, index, step)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """`input_ids` and `attention_mask`, int64 (rows, longest row), and `labels`.

        Rows are padded on the right. `labels` is int64 (rows, longest row) for causal, masked and
        tags, (rows, longest target) for seq2seq and corrupted, with `decoder_input_ids` and
        `decoder_attention_mask` of that shape; (rows, 1) for label and (rows, 2) for span; float32
        (rows, labels) for labels and value. `token_type_ids` are there where the tokenizer has them.
        """
        width = max(len(row.input_ids) for row in rows)
        batch = {
            "input_ids": _padded([row.input_ids for row in rows], width, self.pad_token_id),
            "attention_mask": _padded([(1,) * len(row.input_ids) for row in rows], width, 0),
        }
        if rows[0].token_type_ids:
            batch["token_type_ids"] = _padded([row.token_type_ids for row in rows], width, 0)
        return batch | self._targets([row.labels for row in rows], width)

    def _targets(self, labels: list[tuple[float, ...]], width: int) -> Batch:
        match self.objective:
            case "causal" | "masked" | "tags":
                return {"labels": _padded(labels, width, IGNORED)}
            case "seq2seq" | "corrupted":
                longest = max(map(len, labels))
                decoder = [self._decoder_inputs(row)[:longest] for row in labels]
                return {
                    "labels": _padded(labels, longest, IGNORED),
                    "decoder_input_ids": _padded(decoder, longest, self.pad_token_id),
                    "decoder_attention_mask": _padded([(1,) * len(r) for r in labels], longest, 0),
                }
            case "label" | "span":
                return {"labels": _padded(labels, len(labels[0]), IGNORED)}
            case "labels" | "value":
                import torch

                return {"labels": torch.tensor(labels, dtype=torch.float32)}

    def _decoder_inputs(self, labels: tuple[float, ...]) -> tuple[float, ...]:
        """The target moved right by one, as each model's own `shift_tokens_right` does it."""
        first = labels[-1] if self.decoder_start_token_id is None else self.decoder_start_token_id
        moved = (first, *labels)
        return tuple(self.pad_token_id if token == IGNORED else token for token in moved)

    def filler(self, rows: Rows) -> EncodedRow:
        """A row that weighs nothing, for a rank whose share of a step has run out.

        It is attended to, because a row that attends to nothing is a softmax over nothing. A head
        may need a complete row, with an end token: the first, without its labels.
        """
        if self.objective in ("causal", "seq2seq", "masked", "corrupted"):
            return EncodedRow((self.pad_token_id,), (IGNORED,), (), 0)
        first = rows[0]
        nothing = NOT_LEARNT if self.objective in ("labels", "value") else IGNORED
        labels = (nothing,) * len(first.labels)
        return EncodedRow(first.input_ids, labels, (), first.row, first.token_type_ids)


def _padded(rows: Sequence[tuple[float, ...]], width: int, value: int) -> "torch.Tensor":
    import torch

    return torch.tensor([row + (value,) * (width - len(row)) for row in rows], dtype=torch.int64)
