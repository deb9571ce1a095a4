"""Sum, count, divide: the one place that knows what the loss is, for training and validation.

B batch, T tokens, V vocabulary, N supervised tokens.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

from peftune.data.encoding import IGNORED


def count_targets(labels_BT: torch.Tensor) -> int:
    """Supervised tokens of a batch. The first label of a row has no token before it to predict it."""
    return int((labels_BT[:, 1:] != IGNORED).sum())


def token_nll_sum(
    logits_BTV: torch.Tensor, labels_BT: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Negative log likelihood summed over supervised tokens, in float32; 0 when there are none.

    With label smoothing ε the target is (1-ε) on the label and ε spread evenly over the vocabulary
    (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """
    targets_BT = labels_BT[:, 1:]
    supervised_BT = targets_BT != IGNORED
    logits_NV = logits_BTV[:, :-1][supervised_BT].float()
    return functional.cross_entropy(
        logits_NV, targets_BT[supervised_BT], reduction="sum", label_smoothing=label_smoothing
    )


def batch_nll_sum(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], label_smoothing: float = 0.0
) -> torch.Tensor:
    """Run the model on a batch of `input_ids`, `attention_mask` and `labels`, each (B, T)."""
    outputs = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    )
    return token_nll_sum(outputs.logits, batch["labels"], label_smoothing)
