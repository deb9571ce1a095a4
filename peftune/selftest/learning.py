"""Checks of learning: every part of the adapter gets a gradient, and steps lower the loss."""

import torch

from peftune.data.collate import Batch
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial
from peftune.selftest.weights import named
from peftune.training.loop import Training, backpropagate, micro_batches
from peftune.training.loss import batch_nll_sum, count_targets
from peftune.training.optimizer import set_learning_rate

STEPS = 5
MORE_STEPS = 3
"""Steps to look at again for parameters without a gradient: an expert may have had no token."""


def gradients(trial: Trial) -> Finding:
    """Every adapter parameter gets a finite gradient that is not zero."""
    assert trial.gradients is not None
    first = trial.gradients
    without = [name for name in trial.initial if name not in first or not first[name].any()]
    for step in range(MORE_STEPS):
        if without:
            more = step_gradients(trial, step)
            without = [name for name in without if name not in more or not more[name].any()]
    infinite = [name for name, gradient in first.items() if not gradient.isfinite().all()]
    numbers = {"parameters": len(trial.initial), "without": len(without)}
    if without:
        return Finding(
            numbers,
            f"{len(without)} of {len(trial.initial)} adapter parameters get no gradient "
            f"({named(without)}); they stand where this task never passes, so leave them out of "
            "adapter.target_modules.",
        )
    if infinite and not trial.engine.skips_overflow:
        return Finding(
            {**numbers, "not finite": len(infinite)},
            f"the gradient of {len(infinite)} adapter parameters is not finite ({named(infinite)}); "
            "set model.dtype: float32 or train.mixed_precision: no.",
        )
    return Finding(numbers)


def step_gradients(trial: Trial, step: int) -> dict[str, torch.Tensor]:
    """The gradients that a step of the run would have."""
    backpropagate(trial.training, step)
    found = trial.engine.gradients()
    trial.engine.step()
    trial.restart()
    return found


def learns(trial: Trial) -> Finding:
    """A few steps on one batch, at the recipe's peak learning rate, lower its loss."""
    engine, training = trial.engine, trial.training
    engine.restart(trial.initial)
    small = first_batch(trial)
    [batch] = micro_batches(small, 0)
    losses = [batch_loss(trial, batch)]
    for _ in range(STEPS):
        set_learning_rate(engine.optimizer, 1.0)
        backpropagate(small, 0)
        engine.step()
        losses.append(batch_loss(trial, batch))
    trial.restart()
    numbers = {"before": losses[0], "after": losses[-1], "steps": STEPS}
    if not min(losses[1:]) < losses[0]:
        return Finding(
            numbers,
            f"{STEPS} steps on one batch take its loss from {losses[0]:.4f} to {losses[-1]:.4f}; lower "
            f"train.learning_rate: {training.section.learning_rate:g}.",
        )
    return Finding(numbers)


def first_batch(trial: Trial) -> Training:
    """One micro-batch for each rank as a step of its own."""
    size = trial.training.section.per_device_train_batch_size
    count = min(size * trial.context.plan.world_size, len(trial.training.rows))
    return trial.small_training(trial.first(count), size)


@torch.no_grad()
def batch_loss(trial: Trial, batch: Batch) -> float:
    """Mean loss over all ranks in eval mode."""
    engine, objective = trial.engine, trial.training.batching.objective
    engine.module.eval()
    with engine.autocast():
        total = batch_nll_sum(engine.module, batch, objective)
    count = torch.tensor(float(count_targets(batch["labels"], objective)))
    sums = engine.ranks.sum(torch.stack((total.double().cpu(), count.double())))
    return float(sums[0] / sums[1])
