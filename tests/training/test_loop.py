"""Training steps: the same whatever the micro-batches, and equal to an oracle in float64."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from peftune.adapters import attach, parameter_groups
from peftune.adapters.lora import LoraSection
from peftune.data.collate import collate
from peftune.data.encoding import IGNORED, EncodedRow
from peftune.data.order import step_rows
from peftune.engines.ddp import Ddp
from peftune.engines.engine import StepShape
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.errors import TrainingError
from peftune.plan import Plan, make_plan
from peftune.training.loop import StepRecord, train
from peftune.training.loss import batch_nll_sum, count_targets
from peftune.training.optimizer import build_optimizer
from peftune.training.schedule import learning_rate_factor
from peftune.training.section import TrainSection
from peftune.training.validation import held_out_loss

ADAPTER = LoraSection(method="lora", r=4)
PAD, SEED, STEPS = 0, 3, 3
Trained = tuple[list[StepRecord], dict[str, torch.Tensor]]


def ragged_rows(count: int) -> list[EncodedRow]:
    """Rows of 6 to 45 random tokens, of which 1 to 29 are learnt."""
    generator, rows = torch.Generator().manual_seed(5), []
    for index in range(count):
        prompt, completion = 5 + 7 * index % 12, 1 + 11 * index % 29
        size = (prompt + completion,)
        ids = tuple(torch.randint(2, 384, size, generator=generator).tolist())
        rows.append(EncodedRow(ids, (IGNORED,) * prompt + ids[prompt:], ids[:prompt], index))
    return rows


ROWS = ragged_rows(30)


def section(**keys: Any) -> TrainSection:
    """A schedule with warmup, and clipping that takes effect."""
    numbers = {"learning_rate": 1.0e-2, "warmup_steps": 2, "weight_decay": 0.1}
    return TrainSection(
        **{"global_batch_size": 8, "max_steps": STEPS, "max_grad_norm": 0.5, **numbers, **keys}
    )


def plan_of(chosen: TrainSection, rows: int) -> Plan:
    return make_plan(
        rows=rows,
        world_size=1,
        per_device=chosen.per_device_train_batch_size,
        global_batch=chosen.global_batch_size,
        accumulation=chosen.gradient_accumulation_steps,
        epochs=chosen.num_train_epochs,
        max_steps=chosen.max_steps,
        warmup_steps=chosen.warmup_steps,
        warmup_ratio=chosen.warmup_ratio,
    )


@pytest.fixture(scope="module")
def base(model_folder: Path) -> PeftModel:
    """A LoRA with A and B away from zero, on weights that make each token's loss its own."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    adapted = attach(ADAPTER, model.requires_grad_(False))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def engine_of(model: PeftModel, chosen: TrainSection) -> Ddp:
    """The engine of one process on the CPU, on a model of its own."""
    cpu: Any = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))

    def build(parameters: list[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
        rate, decay = chosen.learning_rate, chosen.weight_decay
        return build_optimizer(chosen, parameter_groups(ADAPTER, parameters, rate, decay))

    per_device = chosen.per_device_train_batch_size
    shape = StepShape(1, per_device, chosen.max_grad_norm, chosen.mixed_precision)
    launch = Launch("ddp", 1, 0, use_cpu=True, wants_gpu=False, offload=False)
    return Ddp(Ranks(cpu), launch, copy.deepcopy(model), build, shape)


def trained(model: PeftModel, rows: list[EncodedRow], **keys: Any) -> Trained:
    """The records of a run and its adapter."""
    chosen = section(**keys)
    engine = engine_of(model, chosen)
    records = list(train(engine, rows, PAD, chosen, plan_of(chosen, len(rows)), SEED))
    return records, engine.trainable_state()


def check_equal(ours: Trained, theirs: Trained, tolerance: float) -> None:
    """Losses and gradient norms relative, the adapters absolute to their values of order 1."""
    for our, their in zip(ours[0], theirs[0], strict=True):
        assert our.loss == pytest.approx(their.loss, rel=tolerance)
        assert our.grad_norm == pytest.approx(their.grad_norm, rel=tolerance)
        assert our.learning_rate == pytest.approx(their.learning_rate)
        assert (our.target_tokens, our.tokens) == (their.target_tokens, their.tokens)
    torch.testing.assert_close(ours[1], theirs[1], rtol=0.0, atol=tolerance)


def mean_of_row_means(model: torch.nn.Module, rows: list[EncodedRow]) -> torch.Tensor:
    """The wrong loss: every row weighs the same, however many tokens it has."""
    batches = [collate([row], PAD) for row in rows]
    means = [batch_nll_sum(model, batch) / count_targets(batch["labels"]) for batch in batches]
    return torch.stack(means).mean()


def row_nll(model: torch.nn.Module, row: EncodedRow) -> torch.Tensor:
    """Written out in the model's precision: -log p of each learnt token, no batch, no padding."""
    ids, labels = torch.tensor([row.input_ids]), row.labels
    log_p = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    learnt = [index for index, label in enumerate(labels) if label != IGNORED]
    return -sum(log_p[index - 1, labels[index]] for index in learnt)


def oracle(model: PeftModel, rows: list[EncodedRow], chosen: TrainSection) -> Trained:
    """One row at a time in float64, with torch's own clipping and AdamW."""
    exact = copy.deepcopy(model).double().train()
    plan, records = plan_of(chosen, len(rows)), []
    named = {name: p for name, p in exact.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), weight_decay=chosen.weight_decay)
    for step in range(plan.total_steps):
        picked = [rows[i] for i in step_rows(SEED, step, len(rows), plan.global_batch_size)]
        targets = sum(label != IGNORED for row in picked for label in row.labels)
        loss = sum(row_nll(exact, row) for row in picked) / targets
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(named.values()), chosen.max_grad_norm)
        rate = chosen.learning_rate * rate_factor(step, chosen, plan)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        tokens = sum(len(row.input_ids) for row in picked)
        records.append(StepRecord(step + 1, float(loss), float(norm), rate, targets, tokens))
    return records, {name: p.detach().float() for name, p in named.items()}


def rate_factor(step: int, chosen: TrainSection, plan: Plan) -> float:
    return learning_rate_factor(
        step,
        shape=chosen.lr_scheduler_type,
        warmup_steps=plan.warmup_steps,
        total_steps=plan.total_steps,
    )


@pytest.mark.parametrize("per_device", [1, 2, 4, 8])
def test_debug(base, per_device):
    ours=trained(base, ROWS, per_device_train_batch_size=per_device)
    theirs=oracle(base, ROWS, section())
    for a,b in zip(ours[0],theirs[0]): print(a,b, a.loss/b.loss-1, a.grad_norm/b.grad_norm-1)
    print(max((ours[1][n]-theirs[1][n]).abs().max() for n in ours[1]))
    ref=trained(base, ROWS, per_device_train_batch_size=8)
    for a,b in zip(ours[0],ref[0]): print(a.loss/b.loss-1, a.grad_norm/b.grad_norm-1)
    print(max((ours[1][n]-ref[1][n]).abs().max() for n in ours[1]))
