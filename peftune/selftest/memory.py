"""The largest step of a run, made once before the first: does it fit, and what does it tell?"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from peftune.artefacts import write_adapter
from peftune.data.collate import Batch
from peftune.data.order import computed_tokens
from peftune.data.section import Split
from peftune.measurement import written
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial
from peftune.selftest.weights import checksums
from peftune.tasks import TASKS
from peftune.training.loop import Training, accumulate, count_step, named_batch, to_device
from peftune.training.loss import batch_nll_sum

CPU_ALLOCATOR = "DefaultCPUAllocator: "
"""How torch's allocator on the CPU begins the message of its RuntimeError."""
SEARCHED_ROWS = 2**17
"""Rows of all ranks among whose micro-batches the largest is looked for, which takes under a second."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, and nothing else."""
    full = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return full or (isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error))


def memory(trial: Trial) -> Finding:
    """The largest micro-batch of the run, a step, an evaluation batch and a save fit into memory."""
    return largest_step(trial, generates=False)


def memory_and_generation(trial: Trial) -> Finding:
    """The same, and the longest prompts with all tokens that may follow."""
    return largest_step(trial, generates=True)


def largest_step(trial: Trial, generates: bool) -> Finding:
    engine = trial.engine
    if engine.ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.ranks.device)
    before = checksums(engine)
    width = train_longest(trial)
    after = checksums(engine)
    trial.changed = [name for name, number in before.items() if after[name] != number]
    evaluate_longest(trial)
    if generates:
        write_longest(trial)
    save_once(trial)
    trial.peak_bytes = peak_bytes(engine.ranks.device)
    trial.restart()
    section = trial.training.section
    numbers = {
        "rows": section.per_device_train_batch_size,
        "tokens": width,
        "peak GB": trial.peak_bytes / 1e9,
    }
    return Finding(numbers)


def train_longest(trial: Trial) -> int:
    """One step on the largest micro-batch and, where there is accumulation, one more; its width."""
    trial.stage = "training"
    training, engine = trial.training, trial.engine
    longest = batch_of(trial, "train", largest_micro_batch(training))
    batches = [longest] * min(2, training.plan.micro_batches_per_step)
    engine.model.train()
    started = time.monotonic()
    targets, tokens = count_step(engine, batches, training.batching.objective)
    accumulate(training, 0, batches, targets)
    trial.gradients = engine.gradients()
    engine.step()
    trial.tokens_per_second = tokens / (time.monotonic() - started)
    return longest["input_ids"].shape[1]


def largest_micro_batch(training: Training) -> list[int]:
    """The rows that take the most memory at a time in this training.

    Order is arithmetic, so all of a run can be looked at beforehand; a run of more than `SEARCHED_ROWS`
    comes near to the longest rows together, and gets those.
    """
    plan, per_device = training.plan, training.section.per_device_train_batch_size
    if plan.total_steps * plan.global_batch_size * plan.world_size > SEARCHED_ROWS:
        return shortened(training, longest_places(training.rows.lengths(), per_device))
    shares = (
        [row for row in share if row is not None]
        for step in range(plan.total_steps)
        for rank in range(plan.world_size)
        for share in training.shares(step, rank)
    )
    return max(shares, key=lambda share: computed(training, share))


def computed(training: Training, share: list[int]) -> int:
    """Tokens that a micro-batch of these rows computes."""
    return computed_tokens(training.sizes[share].tolist(), training.unpadded)


def shortened(training: Training, share: list[int]) -> list[int]:
    """As many of the rows as a forward pass may have tokens."""
    most = training.section.max_tokens_per_pass
    while most is not None and len(share) > 1 and computed(training, share) > most:
        share = share[:-1]
    return share


def batch_of(trial: Trial, split: Split, picked: list[int]) -> Batch:
    """Rows of a split as a batch on the device."""
    rows, training = trial.context.prepared.rows[split], trial.training
    drawn = [training.batching.drawn(rows[i], i, 0) for i in picked]
    return to_device(named_batch(training.batching, drawn, [*picked]), trial.engine.ranks.device)


def longest_places(lengths: np.ndarray, count: int) -> list[int]:
    """Rows with the most tokens and labels together, after the one with the most tokens and the one
    with the most labels. Where there are fewer rows, the longest are there more than once."""
    order = np.argsort(-lengths.sum(axis=1), kind="stable").tolist()
    extremes = [int(lengths[:, side].argmax()) for side in (0, 1)]
    unique = list(dict.fromkeys([*(extremes if count > 1 else []), *order]))
    return [unique[i % len(unique)] for i in range(count)]


@torch.no_grad()
def evaluate_longest(trial: Trial) -> None:
    """A validation pass over the longest held-out rows."""
    trial.stage = "evaluation"
    rows, engine = trial.context.prepared.rows, trial.engine
    for split in ("validation", "test"):
        if rows[split]:
            count = min(trial.training.section.per_device_eval_batch_size, len(rows[split]))
            engine.module.eval()
            with engine.autocast():
                batch = batch_of(trial, split, longest_places(rows[split].lengths(), count))
                batch_nll_sum(engine.module, batch, trial.training.batching.objective)
            return


def write_longest(trial: Trial) -> None:
    """Generate after the longest prompts, where the task is measured by what is written."""
    trial.stage = "generation"
    context, rows = trial.context, trial.context.prepared.rows["test"]
    if not rows or not context.prepared.objective.writes or not TASKS[context.recipe.task].metrics:
        return
    count = trial.training.section.per_device_eval_batch_size * context.plan.world_size
    lengths = rows.lengths()
    longest = longest_places(lengths, min(count, len(rows)))
    written(context, trial.engine, [rows[i].prompt_ids for i in longest])


def save_once(trial: Trial) -> None:
    """Write the adapter to a folder that is thrown away."""
    trial.stage = "saving"
    state, ranks = trial.engine.trainable_state(), trial.engine.ranks
    if ranks.is_main:
        config = trial.engine.module.peft_config["default"]
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(trial.context.recipe, Path(folder), config, trial.initial, state)
    ranks.wait()


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the GPU, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def out_of_memory(trial: Trial, error: BaseException) -> Finding:
    """What to lower, by what was being computed."""
    section = trial.training.section
    lower = {
        "training": f"train.per_device_train_batch_size: {section.per_device_train_batch_size} or "
        f"data.max_length: {trial.context.recipe.data.max_length}"
        + ("" if section.gradient_checkpointing else ", or set train.gradient_checkpointing: true"),
        "evaluation": f"train.per_device_eval_batch_size: {section.per_device_eval_batch_size}",
        "generation": f"train.per_device_eval_batch_size: {section.per_device_eval_batch_size} or "
        f"evaluation.max_new_tokens: {trial.context.recipe.evaluation.max_new_tokens}",
        "saving": "the size of the adapter (adapter.r, adapter.modules_to_save)",
    }[trial.stage]
    said = str(error).strip().splitlines()
    reason = said[0].rpartition(CPU_ALLOCATOR)[2].rstrip(".") if said else "no memory is left"
    return Finding(
        {"stage": trial.stage, "peak GB": peak_bytes(trial.engine.ranks.device) / 1e9},
        f"the largest batch does not fit into memory in {trial.stage} ({reason}); lower {lower}.",
    )


def throughput(trial: Trial) -> Finding:
    """The speed of the step that `memory` made, its first and so its slowest; it never fails."""
    return Finding({"tokens/s": round(trial.tokens_per_second), "peak GB": trial.peak_bytes / 1e9})
