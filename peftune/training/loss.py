"""Sum, count, divide: the one place that knows what the loss is, for training and validation.

B batch, T tokens of the input, U tokens of the target, V vocabulary, L labels, N learnt targets.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch.nn import functional

from peftune.data.rows import IGNORED
from peftune.model.documents import reading_of
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.training.supervised_head import Learnt, Wanted, scoring

Batch = Mapping[str, torch.Tensor]


def targets(labels: torch.Tensor, objective: ObjectiveName) -> torch.Tensor:
    """The labels that have a prediction, in the shape of the predictions.

    Causal rows lose the first, which nothing precedes; one class of a row is no list.
    """
    match objective:
        case "causal":
            return labels[:, 1:]
        case "label":
            return labels[:, 0]
    return labels


def learnt(targets: torch.Tensor) -> torch.Tensor:
    """Where there is something to learn: a class that is not ignored, or a score that is a number."""
    return ~targets.isnan() if targets.is_floating_point() else targets != IGNORED


def count_targets(labels: torch.Tensor, objective: ObjectiveName) -> int:
    """What the summed loss of a batch is divided by: its learnt tokens, labels or scores."""
    return int(learnt(targets(labels, objective)).sum())


def nll_sum(
    logits: torch.Tensor,
    labels: torch.Tensor,
    objective: ObjectiveName,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Loss summed over the learnt targets, in float32; 0 when there are none.

    Tokens, classes, tags and spans: negative log likelihood; logits are (B, T, V), (B, U, V),
    (B, L), (B, T, L), or (B, 2, T) for the first and the last token of a span. With label smoothing
    ε the target is (1-ε) on the label and ε spread evenly over all choices (Szegedy et al. 2016,
    arXiv:1512.00567, section 7). Several labels: negative log likelihood of each being there or
    not; a value: squared error. Both have logits (B, L) and labels (B, L).
    """
    wanted = targets(labels, objective)
    mask = learnt(wanted)
    chosen = (logits[:, :-1] if objective == "causal" else logits)[mask].float()
    match objective:
        case "causal" | "seq2seq" | "masked" | "corrupted" | "label" | "tags" | "span":
            return functional.cross_entropy(
                chosen, wanted[mask], reduction="sum", label_smoothing=label_smoothing
            )
        case "labels":
            return functional.binary_cross_entropy_with_logits(
                chosen, wanted[mask], reduction="sum"
            )
        case "value":
            return functional.mse_loss(chosen, wanted[mask], reduction="sum")


def batch_nll_sum(
    model: torch.nn.Module, batch: Batch, objective: ObjectiveName, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Run the model on a batch as Batching makes it, and sum the loss."""
    if not OBJECTIVES[objective].generates:
        logits = model_logits(model, batch, objective)
        return nll_sum(logits, batch["labels"], objective, label_smoothing)
    learnt = learnt_of(batch["labels"], objective, label_smoothing)
    with scoring(learnt):
        logits = model_logits(model, batch, objective)
    if learnt.nll_sum is not None:
        # The sum is over nothing; it ties the loss to the output that an engine's hooks stand at.
        return learnt.nll_sum + logits.sum()
    return functional.cross_entropy(
        wanted_of(logits, learnt).float(),
        learnt.labels,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def scores_at(
    model: torch.nn.Module,
    batch: Batch,
    objective: ObjectiveName,
    places: torch.Tensor,
    padded: bool = False,
) -> torch.Tensor:
    """The scores (N, V) of tokens of a model that predicts tokens; `places` count through the flattened
    labels of the batch."""
    wanted = Wanted(places)
    with scoring(wanted):
        logits = model_logits(model, batch, objective, padded)
    return wanted_of(logits, wanted)


def wanted_of(logits: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """The scores (N, V) of what is wanted, out of those that a model gave: these alone, or all."""
    return logits[0] if wanted.selected else logits.flatten(0, -2)[wanted.places]


def learnt_of(labels: torch.Tensor, objective: ObjectiveName, label_smoothing: float) -> Learnt:
    """The learnt tokens of a batch, and where their scores are: causal ones one token earlier."""
    wanted = targets(labels, objective)
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, : wanted.shape[1]] = learnt(wanted)
    return Learnt(mask.flatten().nonzero()[:, 0], wanted[learnt(wanted)], label_smoothing)


def model_logits(
    model: torch.nn.Module, batch: Batch, objective: ObjectiveName, padded: bool = False
) -> torch.Tensor:
    """The model's scores, without its own loss, which is a mean over the batch.

    `padded` computes the padding too, as the model's own code does it.

    Scores of a span are -inf at padding, so that no loss depends on the width of its batch. The
    question keeps its scores: the model learns that it holds no answer, and whoever reads the
    scores need not know where it ends.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "row_ids")}
    if objective in ("causal", "seq2seq", "corrupted"):
        inputs["use_cache"] = False  # type: ignore[assignment]
    with nullcontext() if padded else reading_of(batch):
        outputs = model(**inputs)
    if objective == "span":
        logits = torch.stack((outputs.start_logits, outputs.end_logits), dim=1)
        return logits.masked_fill(batch["attention_mask"][:, None] == 0, -math.inf)
    return outputs.logits
