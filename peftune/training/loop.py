"""The train loop: one optimizer step after another, each yielded to the caller.

A step covers `global_batch_size` rows. The loss is the sum over all supervised tokens of the step,
on all ranks and in all micro-batches, divided once by their number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from peftune.data.collate import Batch, Batching
from peftune.data.order import rank_micro_batches, step_rows
from peftune.data.rows import EncodedRow
from peftune.engines.engine import Engine
from peftune.errors import TrainingError
from peftune.objectives import ObjectiveName
from peftune.plan import Plan
from peftune.training.loss import batch_nll_sum, count_targets, learnt
from peftune.training.neftune import embedding_noise
from peftune.training.optimizer import set_learning_rate
from peftune.training.randomness import seed_step
from peftune.training.schedule import learning_rate_factor
from peftune.training.section import TrainSection


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did. `step` counts finished steps, so the first record says 1."""

    step: int
    loss: float
    """Mean negative log likelihood over the step's supervised tokens, in nats."""
    grad_norm: float
    """Euclidean norm of the adapter's gradient before clipping."""
    learning_rate: float
    target_tokens: int
    """Supervised tokens of the step, over all ranks."""
    tokens: int
    """All tokens of the step without padding, over all ranks."""


def train(
    engine: Engine,
    rows: Sequence[EncodedRow],
    batching: Batching,
    section: TrainSection,
    plan: Plan,
    seed: int,
) -> Iterator[StepRecord]:
    """Yield a StepRecord after each optimizer step; the caller logs, validates and saves in between.

    Raises TrainingError, on every rank alike, when a loss or gradient norm is not finite.
    """
    for step in range(plan.total_steps):
        engine.model.train()
        seed_step(seed, step, engine.ranks.rank)
        batches = micro_batches(rows, batching, plan, seed, step, engine)
        target_tokens, tokens = count_step(engine, batches, batching.objective)
        factor = learning_rate_factor(
            step,
            shape=section.lr_scheduler_type,
            warmup_steps=plan.warmup_steps,
            total_steps=plan.total_steps,
        )
        learning_rate = set_learning_rate(engine.optimizer, factor)
        nll_sum = accumulate(engine, batches, batching.objective, section, target_tokens)
        grad_norm = engine.step()
        loss = float(engine.ranks.sum(nll_sum)) / target_tokens
        require_finite(step + 1, loss, grad_norm, engine.skips_overflow)
        yield StepRecord(step + 1, loss, grad_norm, learning_rate, target_tokens, tokens)


def micro_batches(
    rows: Sequence[EncodedRow],
    batching: Batching,
    plan: Plan,
    seed: int,
    step: int,
    engine: Engine,
) -> list[Batch]:
    """This rank's share of a step; every rank gets the same number of micro-batches."""
    ids = step_rows(seed, step, len(rows), plan.global_batch_size)
    shares = rank_micro_batches(ids, engine.ranks.rank, plan.world_size, plan.per_device_batch_size)
    filler = batching.filler(rows)
    picked = (
        [filler if i is None else batching.drawn(rows[i], i, step) for i in share]
        for share in shares
    )
    return [to_device(batching.collate(share), engine.ranks.device) for share in picked]


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def count_step(engine: Engine, batches: list[Batch], objective: ObjectiveName) -> tuple[int, int]:
    """Learnt targets and all tokens of the step, over micro-batches and ranks."""
    own = [
        sum(count_targets(batch["labels"], objective) for batch in batches),
        sum(count_tokens(batch) for batch in batches),
    ]
    counts = engine.ranks.sum(torch.tensor(own, dtype=torch.float64, device="cpu"))
    return int(counts[0]), int(counts[1])


def count_tokens(batch: Batch) -> int:
    """Tokens of the rows that have something to learn, which a filler has not."""
    rows = learnt(batch["labels"]).flatten(1).any(dim=1)
    return int(batch["attention_mask"][rows].sum())


def accumulate(
    engine: Engine,
    batches: list[Batch],
    objective: ObjectiveName,
    section: TrainSection,
    target_tokens: int,
) -> torch.Tensor:
    """Backpropagate every micro-batch; returns this rank's summed loss."""
    # Every engine averages gradients over ranks; the step wants their sum over all target tokens.
    scale = engine.ranks.world_size / target_tokens
    nll_sum = torch.zeros((), dtype=torch.float64)
    for index, batch in enumerate(batches):
        with engine.micro_batch(last=index == len(batches) - 1):
            nll = training_nll_sum(engine, batch, objective, section)
            engine.backward(nll * scale)
        nll_sum += nll.detach().double().cpu()
    return nll_sum


def training_nll_sum(
    engine: Engine, batch: Batch, objective: ObjectiveName, section: TrainSection
) -> torch.Tensor:
    embedding = engine.module.get_input_embeddings()
    with (
        engine.autocast(),
        embedding_noise(embedding, section.neftune_noise_alpha, batch["attention_mask"]),
    ):
        return batch_nll_sum(engine.model, batch, objective, section.label_smoothing_factor)


def require_finite(step: int, loss: float, grad_norm: float, skips_overflow: bool) -> None:
    """Stop at the first number that is not one.

    fp16 engines skip a step whose scaled gradient overflows, so there only the loss is checked.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"step {step}: the loss is {loss}. Lower train.learning_rate, or train with "
            "train.mixed_precision: bf16 or no."
        )
    if not math.isfinite(grad_norm) and not skips_overflow:
        raise TrainingError(
            f"step {step}: the gradient norm is {grad_norm} at a loss of {loss:.4f}. Lower "
            "train.learning_rate, or train with train.mixed_precision: bf16 or no."
        )
