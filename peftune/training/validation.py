"""Token-weighted loss on held-out rows: the same sum and count as training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from peftune.data.collate import Batch, Batching
from peftune.data.order import rank_micro_batches
from peftune.data.rows import Rows
from peftune.engines.engine import Engine
from peftune.training.loop import to_device
from peftune.training.loss import batch_nll_sum, count_targets, model_logits


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean negative log likelihood in nats over `target_tokens` supervised tokens."""

    loss: float
    target_tokens: int


def held_out_batches(
    engine: Engine, rows: Rows, batching: Batching, batch_size: int
) -> Iterator[tuple[list[int | None], Batch]]:
    """This rank's share of `rows`: positions, None for a filler, and the batch they make."""
    ranks, filler = engine.ranks, batching.filler(rows)
    sizes, layout = rows.lengths().sum(axis=1).tolist(), (ranks.rank, ranks.world_size, batch_size)
    for share in rank_micro_batches(range(len(rows)), sizes, *layout, mixed=False):
        picked = [filler if i is None else batching.drawn(rows[i], i) for i in share]
        yield share, to_device(batching.collate(picked), ranks.device)


@torch.no_grad()
def held_out_loss(engine: Engine, rows: Rows, batching: Batching, batch_size: int) -> HeldOutLoss:
    """Loss of the engine's model on `rows`; depends neither on the batch size nor on the ranks."""
    engine.module.eval()
    totals = torch.zeros(2, dtype=torch.float64)
    for _, batch in held_out_batches(engine, rows, batching, batch_size):
        with engine.autocast():
            totals[0] += batch_nll_sum(engine.module, batch, batching.objective).double().cpu()
        totals[1] += count_targets(batch["labels"], batching.objective)
    nll_sum, target_tokens = engine.ranks.sum(totals).tolist()
    return HeldOutLoss(nll_sum / target_tokens, int(target_tokens))


@torch.no_grad()
def held_out_readings(
    engine: Engine,
    rows: Rows,
    batching: Batching,
    batch_size: int,
    read: Callable[[int, torch.Tensor], Any],
) -> list[Any]:
    """What `read` makes of each row's position and scores, in the order of `rows`, on every rank.

    Scores are float32 on the CPU, as `model_logits` gives them for one row; those of tokens go on
    into the padding. Reading them where they arise keeps what is gathered small.
    """
    engine.module.eval()
    found: list[tuple[int, Any]] = []
    for share, batch in held_out_batches(engine, rows, batching, batch_size):
        with engine.autocast():
            logits = model_logits(engine.module, batch, batching.objective).float().cpu()
        found += [(i, read(i, one)) for i, one in zip(share, logits, strict=True) if i is not None]
    ordered = sorted(engine.ranks.gather_objects(found), key=lambda reading: reading[0])
    return [reading for _, reading in ordered]
