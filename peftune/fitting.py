"""The training stage: steps, validations and checkpoints, until the end or until asked to stop."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from peftune.artefacts import write_adapter
from peftune.checkpoint.folder import prune_checkpoints, write_checkpoint
from peftune.checkpoint.identity import start_identity
from peftune.checkpoint.state import Progress, State, write_state
from peftune.checkpoint.writer import Writer
from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.environment import versions
from peftune.errors import Interrupted, TrainingError
from peftune.records import write_json
from peftune.resuming import Start, Tensors
from peftune.signals import Signals
from peftune.training.loop import Asks, StepRecord, train
from peftune.training.reporting import Reporter
from peftune.training.selection import Selection, is_due
from peftune.training.validation import held_out_loss

TRAIN_RESULTS = "train_results.json"


@dataclass(frozen=True)
class Fit:
    """What the training stage works with."""

    context: Run
    engine: Engine
    reporter: Reporter
    initial: Tensors
    """The adapter before its first step."""
    identity: Callable[[], dict[str, Any]]
    signals: Signals
    started: float
    """When this process began, by the monotonic clock, in seconds."""
    trackers: Callable[[], dict[str, str]]
    """Ids of the run in experiment trackers."""


def fit(job: Fit, start: Start) -> None:
    """Train; validate, save and stop as the recipe says; end with the best adapter if asked.

    Every decision follows from the step, from a loss that all ranks share, or from what the ranks have
    agreed on with that loss. Raises Interrupted after saving when a rank was asked to stop.
    """
    section, plan = job.context.recipe.train, job.context.plan
    selection, best, step = start.selection, start.best, start.step
    job.reporter.restart_clock()
    with closing(Writer()) as writer, job.signals.waiting():
        clock = SaveClock(job, writer)
        for record in steps(job, start, clock.asks):
            job.reporter.step(record)
            step = record.step
            if is_due(step, section.eval_steps, plan.total_steps):
                selection = validate(job, step, selection)
                if selection.best_step == step and section.load_best_model_at_end:
                    best = job.engine.trainable_state()
            if wants_checkpoint(job, record):
                save_checkpoint(job, writer, step, selection, best)
                clock.saved()
            go_on(job, writer, record)
            if selection.exhausted(section.early_stopping_patience):
                best_step = selection.best_step
                job.reporter.say(f"step {step}: stopped early; best step {best_step}")
                break
        job.context.ranks.from_main(writer.wait)
    if best is not None:
        job.engine.load_trainable_state(best)
    if job.context.ranks.is_main:
        job.reporter.save_state(job.context.folder, step, selection)
        write_json(job.context.folder / TRAIN_RESULTS, job.reporter.train_results(step))


def steps(job: Fit, start: Start, asks: Callable[[], Asks]) -> Iterator[StepRecord]:
    """What is left to train; nothing where training had stopped early."""
    if start.selection.exhausted(job.context.recipe.train.early_stopping_patience):
        return iter(())
    return train(job.context.training(job.engine, asks), start.step)


class SaveClock:
    """What the time and the signals of this process ask for."""

    def __init__(self, job: Fit, writer: Writer) -> None:
        self.job, self.writer = job, writer
        self.last = time.monotonic()

    def asks(self) -> Asks:
        """What this rank asks of all; the minutes are counted on rank 0."""
        minutes = self.job.context.recipe.train.save_every_minutes
        is_main = self.job.context.ranks.is_main
        due = minutes is not None and time.monotonic() - self.last >= 60 * minutes
        stop = self.job.signals.received is not None or hours_are_over(self.job)
        return Asks(stop=stop, save=due and is_main, failed=self.writer.failed)

    def saved(self) -> None:
        self.last = time.monotonic()


def hours_are_over(job: Fit) -> bool:
    """Whether `train.max_hours` have passed since the start of this process."""
    hours = job.context.recipe.train.max_hours
    return hours is not None and time.monotonic() - job.started >= 3600 * hours


def wants_checkpoint(job: Fit, record: StepRecord) -> bool:
    due = is_due(record.step, job.context.recipe.train.save_steps, job.context.plan.total_steps)
    return due or record.asked.save or record.asked.stop


def go_on(job: Fit, writer: Writer, record: StepRecord) -> None:
    """Return unless the ranks have agreed to end here."""
    if record.asked.failed:
        job.context.ranks.from_main(writer.wait)
    if record.asked.stop:
        job.context.ranks.from_main(writer.wait)
        raise Interrupted(
            f"stopped after step {record.step} {reason(job)}; checkpoint-{record.step} is in "
            f"{job.context.folder}. Go on with resume: auto."
        )


def reason(job: Fit) -> str:
    """Why this rank stops, as it knows it."""
    if job.signals.received is not None:
        return f"by {job.signals.received.name}"
    if hours_are_over(job):
        return f"by train.max_hours: {job.context.recipe.train.max_hours:g}"
    return "by a signal to another rank"


def validate(job: Fit, step: int, selection: Selection) -> Selection:
    """The selection after a validation. Raises TrainingError for a loss that is not finite."""
    context = job.context
    batch = context.recipe.train.per_device_eval_batch_size
    rows = context.prepared.rows["validation"]
    held_out = held_out_loss(job.engine, rows, context.prepared.batching, batch)
    if not math.isfinite(held_out.loss):
        raise TrainingError(
            f"step {step}: the validation loss is {held_out.loss}. Lower train.learning_rate, or set "
            "model.dtype: float32."
        )
    job.reporter.validation(step, held_out.loss, held_out.target_tokens)
    return selection.updated(step, held_out.loss)


def save_checkpoint(
    job: Fit, writer: Writer, step: int, selection: Selection, best: Tensors | None
) -> None:
    """Copy the state, when the last one is written; a thread of rank 0 writes it while all go on."""
    writer.wait()
    state = State(
        job.engine.trainable_state(),
        job.engine.optimizer_state(),
        best if best is not None and selection.best_step != step else {},
    )
    if job.context.ranks.is_main:
        writer.submit(checkpoint_write(job, step, selection, state))
    job.reporter.restart_clock()


def checkpoint_write(job: Fit, step: int, selection: Selection, state: State) -> Callable[[], None]:
    """The write of what is true now, to be done later."""
    context, config = job.context, job.engine.module.peft_config["default"]
    totals, trackers = job.reporter.totals(), job.trackers()
    trainer_state = job.reporter.trainer_state(step, selection, [])

    def fill(folder: Any) -> None:
        identity = job.identity() | start_identity(context.recipe, job.initial)
        progress = Progress(step, selection, totals, trackers, identity, versions())
        write_adapter(context.recipe, folder, config, job.initial, state.parameters)
        write_json(folder / "trainer_state.json", trainer_state)
        write_state(folder, state, progress)

    def write() -> None:
        job.reporter.sync()
        write_checkpoint(context.folder, step, fill)
        limit = context.recipe.train.save_total_limit
        prune_checkpoints(context.folder, limit, selection.best_step)

    return write
