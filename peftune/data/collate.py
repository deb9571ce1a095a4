"""Encoded rows become one batch of tensors."""

from collections.abc import Sequence

import torch

from peftune.data.encoding import IGNORED, EncodedRow


def collate(rows: Sequence[EncodedRow | None], pad_token_id: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels`, each int64 of shape (rows, longest row).

    Rows are padded on the right. None becomes a single pad token without a label; it is attended
    to, because a row that attends to nothing is a softmax over nothing.
    """
    ids = [row.input_ids if row else (pad_token_id,) for row in rows]
    labels = [row.labels if row else (IGNORED,) for row in rows]
    width = max(map(len, ids))
    return {
        "input_ids": _padded(ids, width, pad_token_id),
        "attention_mask": _padded([(1,) * len(row) for row in ids], width, 0),
        "labels": _padded(labels, width, IGNORED),
    }


def _padded(rows: Sequence[tuple[int, ...]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([row + (value,) * (width - len(row)) for row in rows], dtype=torch.int64)
