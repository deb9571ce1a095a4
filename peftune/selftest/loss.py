"""Checks of the loss: the loop's against plain arithmetic, on any layout of rows."""

from collections.abc import Iterator

import torch

from peftune.data.collate import Batch
from peftune.data.order import rank_micro_batches, step_rows
from peftune.data.rows import IGNORED, EncodedRow
from peftune.selftest.check import Finding
from peftune.selftest.plain_loss import row_loss
from peftune.selftest.trial import SEARCHED, Trial
from peftune.training.draws import row_draws
from peftune.training.loop import Training, backpropagate, drawing_from, named_batch, to_device
from peftune.training.loss import batch_nll_sum, count_targets, model_logits

PER_DEVICE = 2
BOUNDS = {1e-4: 1e-5, 1e-2: 5e-3, 5e-2: 2e-2}
"""How far a loss may differ, as a share, where scores may differ so far."""
WAY_OUT = "do not train on these numbers; report it with this recipe"


def step_of(trial: Trial) -> Training:
    """A step whose rows, micro-batches and ranks weigh differently.

    Each rank has a full micro-batch and one of a single row; with several ranks the last one has only
    the first. A mean of means is then another number, even where every row has one label.
    """
    ranks = trial.context.plan.world_size
    rows = unequal_rows(trial, (PER_DEVICE + 1) * ranks - (ranks > 1))
    return trial.small_training(rows, PER_DEVICE)


def unequal_rows(trial: Trial, count: int) -> list[EncodedRow]:
    """Rows from the least to the most learnt targets among the first; repeated if there are few."""
    order = sorted(
        trial.first(SEARCHED), key=lambda row: len(row.labels) - row.labels.count(IGNORED)
    )
    places = (i * (len(order) - 1) // max(1, count - 1) for i in range(count))
    return [order[place] for place in places]


def loss(trial: Trial) -> Finding:
    """The loop's loss of an accumulated step is the sum over its rows, one at a time, divided once."""
    small = step_of(trial)
    found, targets, *_ = backpropagate(small, 0)
    trial.engine.step()
    trial.restart()
    with torch.no_grad():
        parts = [row_loss_of(small, batch) for batch in single_rows(small)]
    counted = sum(count for _, count in parts)
    expected = sum(float(total) for total, _ in parts) / counted
    bound, off = BOUNDS[trial.bound], abs(found - expected) / abs(expected)
    numbers = {"loop": found, "row by row": expected, "difference": off, "bound": bound}
    if not off <= bound or targets != counted:
        return Finding(
            numbers,
            f"the loop computes {found:.6f} nats for {targets} targets and its rows one at a time give "
            f"{expected:.6f} for {counted}; {WAY_OUT}.",
        )
    return Finding(numbers)


def row_loss_of(small: Training, batch: Batch) -> tuple[torch.Tensor, int]:
    """Loss and targets of one row, with the noise and dropout that it has in the step."""
    model, objective = small.engine.model, small.batching.objective
    model.train()
    draws = row_draws(small.seed, 0, batch)
    with drawing_from(small, batch, draws):
        scores = model_logits(model, batch, objective)
    return row_loss(scores, batch["labels"], objective, small.section.label_smoothing_factor)


def single_rows(small: Training) -> Iterator[Batch]:
    """Each row of the step as a batch of its own."""
    for i in range(len(small.rows)):
        batch = named_batch(small.batching, [small.batching.drawn(small.rows[i], i, 0)], [i])
        yield to_device(batch, small.engine.ranks.device)


def accumulation(trial: Trial) -> Finding:
    """The step's gradient is that of its rows one at a time, whatever the micro-batches and ranks."""
    small, engine = step_of(trial), trial.engine
    _, targets, *_ = backpropagate(small, 0)
    found = engine.gradients()
    engine.step()
    trial.restart()
    for index, batch in enumerate(single_rows(small)):
        with engine.micro_batch(last=index == len(small.rows) - 1):
            # Every rank takes all rows, so the mean over ranks is their sum.
            engine.backward(row_loss_of(small, batch)[0].float() / targets)
    expected = engine.gradients()
    engine.step()
    trial.restart()
    off, bound = gradient_difference(found, expected), 10 * BOUNDS[trial.bound]
    numbers = {"difference": off, "bound": bound}
    if not off <= bound:
        return Finding(
            numbers,
            f"the gradient of a step differs by {off:.1e} of its length from that of its rows one at a "
            f"time (bound {bound:.0e}); {WAY_OUT}.",
        )
    return Finding(numbers)


def gradient_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Length of the difference as a share of the length; infinite if other parameters have one."""
    if ours.keys() != theirs.keys():
        return float("inf")
    squares = torch.zeros(2, dtype=torch.float64)
    for name, one in ours.items():
        off = one.double() - theirs[name].double()
        squares += torch.stack((off.square().sum(), one.double().square().sum()))
    return float((squares[0] / squares[1]).sqrt())


def ranks(trial: Trial) -> Finding:
    """The step dealt out to ranks has the loss that each rank computes from all of its rows."""
    small, joined = step_of(trial), trial.engine.ranks
    alone = share_sum(small, 0, 1)
    if joined.world_size > 1:
        dealt = joined.sum(share_sum(small, joined.rank, joined.world_size))
    else:
        dealt = share_sum(small, 0, 2) + share_sum(small, 1, 2)
    everywhere = joined.gather_objects([float(alone[0])])
    one, many = (float(sums[0] / sums[1]) for sums in (alone, dealt))
    spread = (max(everywhere) - min(everywhere)) / abs(everywhere[0])
    off, bound = max(abs(many - one) / abs(one), spread), BOUNDS[trial.bound]
    numbers = {"one rank": one, "several": many, "ranks": joined.world_size, "difference": off}
    if not off <= bound:
        return Finding(
            numbers,
            f"{max(2, joined.world_size)} ranks together compute {many:.6f} nats and one alone "
            f"{one:.6f} (bound {bound:.0e}); the weights differ between ranks, or rows are lost: "
            f"{WAY_OUT} and launcher file.",
        )
    return Finding(numbers)


@torch.no_grad()
def share_sum(small: Training, rank: int, world_size: int) -> torch.Tensor:
    """Summed loss and targets of one rank's share of the step, as validation computes them."""
    module, batching, sums = (
        small.engine.module,
        small.batching,
        torch.zeros(2, dtype=torch.float64),
    )
    module.eval()
    ids = step_rows(small.seed, 0, len(small.rows), len(small.rows))
    filler = batching.filler(small.rows)
    sizes, layout = small.sizes[ids].tolist(), (rank, world_size, PER_DEVICE)
    for share in rank_micro_batches(ids, sizes, *layout, small.unpadded):
        picked = [filler if i is None else batching.drawn(small.rows[i], i, 0) for i in share]
        batch = to_device(batching.collate(picked), small.engine.ranks.device)
        with small.engine.autocast():
            sums[0] += batch_nll_sum(module, batch, batching.objective).double().cpu()
        sums[1] += count_targets(batch["labels"], batching.objective)
    return sums
