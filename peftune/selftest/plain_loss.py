"""The loss written down a second time, row by row, so that it shares no line with the loop's."""

import torch

from peftune.data.rows import IGNORED
from peftune.objectives import ObjectiveName


def row_loss(
    scores: torch.Tensor, labels: torch.Tensor, objective: ObjectiveName, smoothing: float
) -> tuple[torch.Tensor, int]:
    """Summed loss and number of learnt targets of one row without padding.

    `scores` and `labels` are what `model_logits` and `Batching.collate` give for that row. Cross
    entropy is -(1-ε)·log p(label) - ε·mean(log p), binary cross entropy -log p(answer), and the loss of
    a value its squared error.
    """
    scores, wanted = scores[0], labels[0]
    if objective in ("labels", "value"):
        kept = ~wanted.isnan()
        scores, wanted = scores[kept].double(), wanted[kept].double()
        signed = torch.where(wanted > 0.5, scores, -scores)
        binary = -torch.log(torch.sigmoid(signed))
        return ((scores - wanted) ** 2 if objective == "value" else binary).sum(), int(kept.sum())
    if objective == "label":
        scores = scores[None]
    if objective == "causal":
        scores, wanted = scores[:-1], wanted[1:]
    kept = wanted != IGNORED
    scores = scores[kept].double()
    log_p = scores - torch.logsumexp(scores, dim=-1, keepdim=True)
    total = -(1.0 - smoothing) * log_p[torch.arange(len(log_p)), wanted[kept]].sum()
    if smoothing:
        total = total - smoothing * log_p.mean(dim=-1).sum()
    return total, int(kept.sum())
