"""The train loop: one optimizer step after another, each yielded to the caller.

A step covers `global_batch_size` rows. The loss is the sum over all supervised tokens of the step,
on all ranks and in all micro-batches, divided once by their number.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from peftune.data.collate import Batch, Batching
from peftune.data.order import rank_micro_batches, step_rows
from peftune.data.rows import EncodedRow, Rows
from peftune.engines.engine import Engine
from peftune.errors import TrainingError
from peftune.model.unpadding import is_unpadded
from peftune.objectives import ObjectiveName
from peftune.plan import Plan
from peftune.training.draws import RowDraws, row_draws
from peftune.training.dropout import dropout_from, has_dropout
from peftune.training.loss import batch_nll_sum, count_targets
from peftune.training.neftune import embedding_noise
from peftune.training.optimizer import set_learning_rate
from peftune.training.schedule import learning_rate_factor
from peftune.training.section import TrainSection


class Asks(NamedTuple):
    """What a rank asks of all ranks after a step; one rank's yes is a yes for all."""

    stop: bool = False
    """Save and stop."""
    save: bool = False
    failed: bool = False
    """A checkpoint could not be written."""


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
    asked: Asks = field(default_factory=Asks)
    """The same on every rank."""


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how."""

    engine: Engine
    rows: Rows
    batching: Batching
    section: TrainSection
    plan: Plan
    seed: int
    asks: Callable[[], Asks] = Asks

    @cached_property
    def drops(self) -> bool:
        """Whether the model drops values while training."""
        return has_dropout(self.engine.module)

    @cached_property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """Every module of the model, itself among them: walking through them takes longer than a look."""
        return tuple(self.engine.model.modules())

    @cached_property
    def unpadded(self) -> bool:
        """Whether the model's layers leave out padding."""
        return is_unpadded(self.engine.module.get_base_model())

    @cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each row, those that a decoder reads beside an encoder among them, int64 (rows,)."""
        lengths = self.rows.lengths()
        both = self.batching.objective in ("seq2seq", "corrupted")
        return lengths.sum(axis=1) if both else lengths[:, 0]

    def shares(self, step: int, rank: int) -> list[list[int | None]]:
        """The rows of a rank's micro-batches in a step (from 0); None is a row that weighs nothing."""
        plan = self.plan
        ids = step_rows(self.seed, step, len(self.rows), plan.global_batch_size)
        layout = rank, plan.world_size, plan.per_device_batch_size
        most = self.section.max_tokens_per_pass
        return rank_micro_batches(ids, self.sizes[ids].tolist(), *layout, self.unpadded, most)


def train(training: Training, first_step: int = 0) -> Iterator[StepRecord]:
    """Yield a StepRecord after each optimizer step; the caller logs, validates and saves in between.

    With the state after `first_step` steps in the engine it goes on from there, at once: what a step
    computes follows from the seed and its number alone.

    Raises TrainingError, on every rank alike, when a loss or gradient norm is not finite.
    """
    engine, plan = training.engine, training.plan
    for step in range(first_step, plan.total_steps):
        engine.ranks.at(f"step {step + 1}")
        factor = learning_rate_factor(
            step,
            shape=training.section.lr_scheduler_type,
            warmup_steps=plan.warmup_steps,
            total_steps=plan.total_steps,
        )
        learning_rate = set_learning_rate(engine.optimizer, factor)
        loss, target_tokens, tokens, asked = backpropagate(training, step)
        grad_norm = engine.step()
        require_finite(step + 1, loss, grad_norm, engine.skips_overflow)
        yield StepRecord(step + 1, loss, grad_norm, learning_rate, target_tokens, tokens, asked)


def backpropagate(training: Training, step: int) -> tuple[float, int, int, Asks]:
    """Everything of step `step` (from 0) up to the update: the gradients are in place, and the answer
    is the step's mean loss, its learnt targets, its tokens and what was asked for, over all ranks."""
    engine = training.engine
    if not all(module.training for module in training.modules):
        engine.model.train()
    batches = micro_batches(training, step)
    target_tokens, tokens = count_step(engine, batches, training.batching.objective)
    nll_sum = accumulate(training, step, batches, target_tokens)
    # One exchange for both: what single ranks ask for costs nothing then.
    totals = engine.ranks.sum(torch.tensor([float(nll_sum), *training.asks()], dtype=torch.float64))
    asked = Asks(*(bool(total) for total in totals[1:]))
    return float(totals[0]) / target_tokens, target_tokens, tokens, asked


def micro_batches(training: Training, step: int) -> list[Batch]:
    """This rank's share of a step; every rank gets the same number of micro-batches."""
    rows, batching, ranks = training.rows, training.batching, training.engine.ranks
    filler, batches = batching.filler(rows), []
    for share in training.shares(step, ranks.rank):
        picked = [filler if i is None else batching.drawn(rows[i], i, step) for i in share]
        batch = named_batch(batching, picked, share)
        batches.append(to_device(batch, ranks.device))
    return batches


def named_batch(batching: Batching, rows: list[EncodedRow], ids: list[int | None]) -> Batch:
    """The rows as a batch with `row_ids`, int64 (rows, 1). They tell which it is; a filler has -1."""
    names = torch.tensor([-1 if i is None else i for i in ids])[:, None]
    return {**batching.collate(rows), "row_ids": names}


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
    """Tokens without padding and filler."""
    return int((row_sizes(batch) * (batch["row_ids"] >= 0) > 0).sum())


def row_sizes(batch: Batch) -> torch.Tensor:
    """For each token, how many its row has; 0 for padding. int64 in the shape of `input_ids`."""
    mask = batch["attention_mask"]
    return mask * mask.sum(dim=1, keepdim=True)


def accumulate(
    training: Training, step: int, batches: list[Batch], target_tokens: int
) -> torch.Tensor:
    """Backpropagate every micro-batch of a step; returns this rank's summed loss."""
    engine = training.engine
    # Every engine averages gradients over ranks; the step wants their sum over all target tokens.
    scale = engine.ranks.world_size / target_tokens
    nll_sum = torch.zeros((), dtype=torch.float64)
    for index, batch in enumerate(batches):
        with engine.micro_batch(last=index == len(batches) - 1):
            nll = training_nll_sum(training, batch, row_draws(training.seed, step, batch))
            engine.backward(nll * scale)
        nll_sum += nll.detach().double().cpu()
        engine.ranks.moved()
    return nll_sum


def training_nll_sum(training: Training, batch: Batch, draws: RowDraws) -> torch.Tensor:
    """Summed loss of a micro-batch, its noise and dropout taken from `draws` alone."""
    smoothing, device = training.section.label_smoothing_factor, training.engine.ranks.device
    before = torch_streams(device)
    with drawing_from(training, batch, draws):
        nll = batch_nll_sum(training.engine.model, batch, training.batching.objective, smoothing)
    require_no_other_draws(before, torch_streams(device))
    return nll


@contextmanager
def drawing_from(training: Training, batch: Batch, draws: RowDraws) -> Iterator[None]:
    """Inside, a forward pass on `batch` has the precision, the noise and the dropout of training."""
    engine, alpha = training.engine, training.section.neftune_noise_alpha
    embedding = engine.module.get_input_embeddings()
    with (
        engine.autocast(),
        embedding_noise(embedding, alpha, row_sizes(batch), draws),
        # Watching every call of torch costs a little, so only where something is dropped.
        dropout_from(draws) if training.drops else nullcontext(),
    ):
        yield


def torch_streams(device: torch.device) -> list[torch.Tensor]:
    """The states of torch's own random numbers that a forward pass could draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def require_no_other_draws(before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    """Raise TrainingError when a forward pass drew from torch's own streams."""
    if not all(map(torch.equal, before, after)):
        raise TrainingError(
            "model.model_name_or_path: this model draws random numbers of its own while training, so "
            "its numbers would depend on the layout; set what is random (noise, jitter, layerdrop) to "
            "0 in its config.json."
        )


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
