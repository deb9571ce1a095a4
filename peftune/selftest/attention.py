"""Checks of what a row sees: itself, and nothing that comes later, pads it or stands beside it."""

import torch

from peftune.data.collate import Batch
from peftune.data.rows import EncodedRow
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial, spread_difference

Scores = list[torch.Tensor]
WRITERS = ("causal", "seq2seq", "corrupted")


def padding(trial: Trial) -> Finding:
    """Rows alone have the scores that they have in a batch, with or without its padding."""
    # Alone as the model's own code does it, together as training does.
    alone = [trial.scores(trial.batch([row]), padded=True) for row in trial.ragged]
    found = spread_difference(alone, own_scores(trial, trial.batch(trial.ragged)))
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


def own_scores(trial: Trial, batch: Batch, model: torch.nn.Module | None = None) -> Scores:
    """The scores of each ragged row out of their padded batch, without those at padding."""
    every = trial.scores(batch, model)
    return [own(trial, row, one[None]) for row, one in zip(trial.ragged, every, strict=True)]


def own(trial: Trial, row: EncodedRow, scores: torch.Tensor) -> torch.Tensor:
    """The scores (1, …) of a row without those at padding."""
    match trial.training.batching.objective:
        case "causal" | "masked" | "tags":
            return scores[:, : len(row.input_ids)]
        case "seq2seq" | "corrupted":
            return scores[:, : len(row.labels)]
        case "span":
            return scores[:, :, : len(row.input_ids)]
    return scores


def causality(trial: Trial) -> Finding:
    """The beginning of a row has the same scores whether the rest follows or not."""
    batch = trial.batch([trial.ragged[-1]])
    whole = trial.scores(batch)
    kept = max(1, whole.shape[1] // 2)
    found = spread_difference([whole[:, :kept]], [trial.scores(beginning(batch, kept))])
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
