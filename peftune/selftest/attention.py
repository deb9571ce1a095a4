"""Checks of what a row sees: itself, and nothing that comes later, pads it or stands beside it."""

from collections.abc import Sequence

import torch

from peftune.data.collate import Batch
from peftune.data.rows import EncodedRow
from peftune.objectives import OBJECTIVES
from peftune.probing import vocabulary_of
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial, spread_difference

Scores = list[torch.Tensor]
WRITERS = ("causal", "seq2seq", "corrupted")
MOST_SCORES = 2**21
"""Numbers of a row's scores that are compared. All of them would be the most memory of a training."""


def padding(trial: Trial) -> Finding:
    """Rows alone have the scores that they have in a batch, with or without its padding."""
    # Alone as the model's own code does it, together as training does.
    alone = [own_scores(trial, [row], trial.batch([row]), padded=True)[0] for row in trial.ragged]
    found = spread_difference(alone, own_scores(trial, trial.ragged, trial.batch(trial.ragged)))
    shown = {"difference": found, "bound": trial.bound}
    if not found <= trial.bound:
        return Finding(
            shown,
            f"the scores of rows change by {found:.1e} of their spread in a batch (bound "
            f"{trial.bound:.0e}): attention reaches padding or other rows; try "
            "train.padding_free: false, model.attn_implementation: eager, or "
            "train.per_device_train_batch_size: 1.",
        )
    return Finding(shown)


def own_scores(
    trial: Trial,
    rows: Sequence[EncodedRow],
    batch: Batch,
    model: torch.nn.Module | None = None,
    padded: bool = False,
) -> Scores:
    """The scores of each row out of their padded batch, without those at padding; of a vocabulary those
    of some tokens."""
    objective = trial.training.batching.objective
    if not OBJECTIVES[objective].generates:
        every = trial.scores(batch, model, padded)
        return [own(trial, row, one[None]) for row, one in zip(rows, every, strict=True)]
    each, width = [compared(trial, predicted(trial, row)) for row in rows], batch["labels"].shape[1]
    places = torch.cat([one + index * width for index, one in enumerate(each)])
    every = trial.scores(batch, model, padded, places.to(batch["labels"].device))
    return [*every.split([len(one) for one in each])]


def predicted(trial: Trial, row: EncodedRow) -> int:
    """How many tokens of a row have scores."""
    encoded = trial.training.batching.objective in ("seq2seq", "corrupted")
    return len(row.labels) if encoded else len(row.input_ids)


def compared(trial: Trial, tokens: int) -> torch.Tensor:
    """As many of the first `tokens` as have `MOST_SCORES` together, the first and the last among them."""
    count = min(tokens, max(2, MOST_SCORES // vocabulary_of(trial.engine)))
    return torch.linspace(0, tokens - 1, count).round().long()


def own(trial: Trial, row: EncodedRow, scores: torch.Tensor) -> torch.Tensor:
    """The scores (1, …) of a row without those at padding."""
    match trial.training.batching.objective:
        case "tags":
            return scores[:, : len(row.input_ids)]
        case "span":
            return scores[:, :, : len(row.input_ids)]
    return scores


def causality(trial: Trial) -> Finding:
    """The beginning of a row has the same scores whether the rest follows or not."""
    row = trial.ragged[-1]
    batch, kept = trial.batch([row]), max(1, predicted(trial, row) // 2)
    places = compared(trial, kept).to(batch["labels"].device)
    whole = trial.scores(batch, places=places)
    found = spread_difference([whole], [trial.scores(beginning(batch, kept), places=places)])
    numbers = {"difference": found, "bound": trial.bound}
    if not found <= trial.bound:
        return Finding(
            numbers,
            f"the scores of {kept} tokens change by {found:.1e} of their spread when others follow "
            f"(bound {trial.bound:.0e}): attention reaches later tokens, which generation does not "
            "have; try model.attn_implementation: eager, or another model.",
        )
    return Finding(numbers)


def beginning(batch: Batch, kept: int) -> Batch:
    """The first tokens that a decoder reads."""
    encoded = ("input_ids", "attention_mask") if "decoder_input_ids" in batch else ()
    whole = (*encoded, "row_ids")
    return {name: one if name in whole else one[:, :kept] for name, one in batch.items()}


def writes(trial: Trial) -> bool:
    """Whether the model predicts each token from those before it."""
    return trial.training.batching.objective in WRITERS
