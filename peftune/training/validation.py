"""Token-weighted loss on held-out rows: the same sum and count as training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from peftune.data.collate import collate
from peftune.data.encoding import EncodedRow
from peftune.data.order import rank_micro_batches
from peftune.engines.engine import Engine
from peftune.training.loop import to_device
from peftune.training.loss import batch_nll_sum, count_targets


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean negative log likelihood in nats over `target_tokens` supervised tokens."""

    loss: float
    target_tokens: int


@torch.no_grad()
def held_out_loss(
    engine: Engine, rows: Sequence[EncodedRow], pad_token_id: int, batch_size: int
) -> HeldOutLoss:
    """Loss of the engine's model on `rows`; depends neither on the batch size nor on the ranks."""
    engine.module.eval()
    totals = torch.zeros(2, dtype=torch.float64)
    ranks = engine.ranks
    for share in rank_micro_batches(range(len(rows)), ranks.rank, ranks.world_size, batch_size):
        picked = [None if i is None else rows[i] for i in share]
        batch = to_device(collate(picked, pad_token_id), ranks.device)
        with engine.autocast():
            totals[0] += batch_nll_sum(engine.module, batch).double().cpu()
        totals[1] += count_targets(batch["labels"])
    nll_sum, target_tokens = ranks.sum(totals).tolist()
    return HeldOutLoss(nll_sum / target_tokens, int(target_tokens))
