"""Steps of peftune's own loop on a model in memory, with or without each of its shortcuts."""

import time
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel

from peftune.adapters import attach, parameter_groups
from peftune.adapters.lora import LoraSection
from peftune.data.collate import Batching
from peftune.data.rows import RowTuple
from peftune.engines import prepare
from peftune.engines.engine import StepShape
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.plan import make_plan
from peftune.training.loop import Training, train
from peftune.training.optimizer import build_optimizer
from peftune.training.recomputation import recompute
from peftune.training.section import Recomputation, TrainSection
from peftune.training.shortcuts import compute_fast

ALL = ("unpad", "head", "fuse")
"""The shortcuts of a model."""
Steps = list[tuple[float, float, float]]
"""Seconds, loss and gradient norm of each step."""


def by_peftune(
    model: Any,
    rows: RowTuple,
    batch: int,
    recomputed: Recomputation,
    device: torch.device,
    rank: int = 16,
    shortcuts: tuple[str, ...] = ALL,
) -> Steps:
    """Each of the rows once, so many in a step."""
    adapter = LoraSection(method="lora", r=rank, lora_alpha=2 * rank)
    section = TrainSection(
        per_device_train_batch_size=batch,
        global_batch_size=batch,
        max_steps=len(rows) // batch,
        learning_rate=1.0e-4,
        lr_scheduler_type="constant",
    )
    recompute(model, recomputed)
    adapted: PeftModel = attach(adapter, model)
    compute_fast(
        adapted,
        padding_free="unpad" in shortcuts,
        generates="head" in shortcuts,
        gathers_weights="fuse" not in shortcuts,
    )
    accelerator: Any = SimpleNamespace(
        process_index=0, num_processes=1, device=device, is_main_process=True
    )
    engine = prepare(
        Ranks(accelerator),
        Launch("ddp", 1, 0, device.type == "cpu", False, False),
        adapted,
        lambda learning: build_optimizer(section, parameter_groups(adapter, learning, 1.0e-4, 0.0)),
        StepShape(1, batch, 1.0, "no"),
    )
    whole = make_plan(
        rows=len(rows),
        world_size=1,
        per_device=batch,
        global_batch=batch,
        accumulation=None,
        epochs=None,
        max_steps=section.max_steps,
        warmup_steps=0,
        warmup_ratio=None,
    )
    training = Training(engine, rows, Batching("causal", 0), section, whole, 0)
    steps, started = [], time.perf_counter()
    for record in train(training):
        now = time.perf_counter()
        steps.append((now - started, record.loss, record.grad_norm))
        started = now
    return steps
