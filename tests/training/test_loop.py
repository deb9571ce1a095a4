"""Training steps: the same whatever the micro-batches, and equal to an oracle in float64."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from peftune.adapters import attach, parameter_groups
from peftune.adapters.lora import LoraSection
from peftune.data.collate import Batching
from peftune.data.order import step_rows
from peftune.data.rows import IGNORED, EncodedRow, RowTuple
from peftune.engines.ddp import Ddp
from peftune.engines.engine import StepShape
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.errors import TrainingError
from peftune.plan import Plan, make_plan
from peftune.training.loop import StepRecord, Training, train
from peftune.training.loss import batch_nll_sum, count_targets
from peftune.training.optimizer import build_optimizer
from peftune.training.schedule import learning_rate_factor
from peftune.training.section import TrainSection
from peftune.training.validation import held_out_loss

ADAPTER = LoraSection(method="lora", r=4, lora_alpha=4)
PAD, SEED = 0, 3
CAUSAL = Batching("causal", PAD)
ACCUMULATED = {"global_batch_size": None, "gradient_accumulation_steps": 4}
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


ROWS = RowTuple(ragged_rows(30))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small to share out; threads that wait for a busy core only cost time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def section(**keys: Any) -> TrainSection:
    """A schedule with warmup, clipping that takes effect, and an ε that damps rounding errors."""
    numbers = {"global_batch_size": 8, "max_steps": 3, "learning_rate": 1.0e-2, "warmup_steps": 2}
    limits = {"weight_decay": 0.1, "adam_epsilon": 1.0e-3, "max_grad_norm": 0.3}
    return TrainSection(**{**numbers, **limits, **keys})


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
    """Weights so large that tokens differ in their loss, and a LoRA that already changes them."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" in name else 0.1)
    adapted = attach(ADAPTER, model.requires_grad_(False))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
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


def steps(
    engine: Ddp, chosen: TrainSection, rows: Sequence[EncodedRow] = ROWS
) -> Iterator[StepRecord]:
    plan = plan_of(chosen, len(rows))
    return train(Training(engine, RowTuple(rows), CAUSAL, chosen, plan, SEED))


def trained(model: PeftModel, rows: Sequence[EncodedRow] = ROWS, **keys: Any) -> Trained:
    """The records of a run and its adapter."""
    chosen = section(**keys)
    engine = engine_of(model, chosen)
    return list(steps(engine, chosen, rows)), engine.trainable_state()


def check_equal(ours: Trained, theirs: Trained) -> None:
    """Each loss, gradient norm and tensor of the adapter to a millionth of its size."""
    for our, their in zip(ours[0], theirs[0], strict=True):
        assert our.loss == pytest.approx(their.loss, rel=1e-6)
        assert our.grad_norm == pytest.approx(their.grad_norm, rel=1e-6)
        assert our.learning_rate == pytest.approx(their.learning_rate)
        measured = {"loss": 0.0, "grad_norm": 0.0, "learning_rate": 0.0}
        assert replace(our, **measured) == replace(their, **measured)
    assert ours[1].keys() == theirs[1].keys()
    for name, tensor in theirs[1].items():
        assert (ours[1][name] - tensor).norm() <= 1e-6 * tensor.norm(), name


def row_nll(model: torch.nn.Module, row: EncodedRow) -> torch.Tensor:
    """Written out in the model's precision: -log p of each learnt token, no batch, no padding."""
    ids, labels = torch.tensor([row.input_ids]), row.labels
    log_p = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return -sum(log_p[i - 1, labels[i]] for i in range(len(labels)) if labels[i] != IGNORED)


def oracle(model: PeftModel, rows: list[EncodedRow], chosen: TrainSection) -> Trained:
    """Eight steps, one row at a time in float64, with torch's own clipping and AdamW."""
    exact = copy.deepcopy(model).double()
    named = {name: p for name, p in exact.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        named.values(), eps=chosen.adam_epsilon, weight_decay=chosen.weight_decay
    )
    records = []
    for step in range(8):
        picked = [rows[i] for i in step_rows(SEED, step, len(rows), 8)]
        targets = sum(learnt(row) for row in picked)
        loss = sum(row_nll(exact, row) for row in picked) / targets
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(named.values()), chosen.max_grad_norm)
        factor = learning_rate_factor(step, shape="cosine", warmup_steps=2, total_steps=8)
        rate = optimizer.param_groups[0]["lr"] = chosen.learning_rate * factor
        optimizer.step()
        tokens = sum(len(row.input_ids) for row in picked)
        records.append(StepRecord(step + 1, loss.item(), norm.item(), rate, targets, tokens))
    return records, {name: p.detach().float() for name, p in named.items()}


def learnt(row: EncodedRow) -> int:
    return sum(label != IGNORED for label in row.labels)


def mean_of_means(
    training: Training, step: int, batches: list[Any], target_tokens: int
) -> torch.Tensor:
    """The wrong loop: each micro-batch divided by its own tokens, then by their number."""
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        mean = (
            batch_nll_sum(training.engine.model, batch, "causal")
            / count_targets(batch["labels"], "causal")
            / len(batches)
        )
        training.engine.backward(mean)
        total += mean.detach().double()
    return total * target_tokens


@pytest.fixture(scope="module")
def whole_batch(base: PeftModel) -> Trained:
    return trained(base)


@pytest.mark.parametrize(
    ("per_device", "keys"), [(1, {}), (2, {}), (4, {}), (2, ACCUMULATED)], ids=str
)
def test_micro_batches_change_no_number(
    per_device: int, keys: dict[str, Any], base: PeftModel, whole_batch: Trained
) -> None:
    check_equal(trained(base, per_device_train_batch_size=per_device, **keys), whole_batch)


@pytest.mark.parametrize("per_device", [1, 2, 4])
def test_a_mean_of_means_would_be_noticed(
    per_device: int, base: PeftModel, whole_batch: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches differ in their tokens, so the wrong loss is off a thousandfold too much."""
    monkeypatch.setattr("peftune.training.loop.accumulate", mean_of_means)
    wrong = trained(base, per_device_train_batch_size=per_device)
    with pytest.raises(AssertionError):
        check_equal(wrong, whole_batch)
    pairs = zip(wrong[0], whole_batch[0], strict=True)
    assert max(abs(ours.loss / theirs.loss - 1) for ours, theirs in pairs) > 1e-3
    # Nothing else is wrong with it: of a single micro-batch there is one mean only.
    check_equal(trained(base), whole_batch)


@pytest.mark.parametrize("per_device", [2, 8])
def test_training_equals_one_row_at_a_time_in_float64(per_device: int, base: PeftModel) -> None:
    """Over two epochs of 30 rows, so steps 4 and 8 hold six rows and not eight."""
    keys = {"max_steps": None, "num_train_epochs": 2}
    ours = trained(base, per_device_train_batch_size=per_device, **keys)
    assert [record.step for record in ours[0]] == list(range(1, 9))
    assert all(record.grad_norm > 0.3 for record in ours[0]), "nothing was clipped"
    check_equal(ours, oracle(base, ROWS, section(**keys)))


def test_a_short_last_step_weighs_its_own_rows(base: PeftModel) -> None:
    """Three rows in a batch of eight: as if the batch were three."""
    short = trained(base, ROWS[:3], per_device_train_batch_size=2)
    exact = trained(base, ROWS[:3], per_device_train_batch_size=3, global_batch_size=3)
    check_equal(short, exact)
    assert {record.target_tokens for record in short[0]} == {sum(map(learnt, ROWS[:3]))}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(value: float, base: PeftModel) -> None:
    engine = engine_of(base, section())
    records = steps(engine, section())
    assert next(records).step == 1
    poisoned = {name: torch.full_like(t, value) for name, t in engine.trainable_state().items()}
    engine.load_trainable_state(poisoned)
    with pytest.raises(TrainingError, match=r"^step 2: the loss is nan. Lower train.learning_rate"):
        next(records)


def test_a_gradient_that_is_no_number_stops_the_run_unless_fp16_skips_it(
    base: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ddp, "step", lambda engine: float("inf"))
    with pytest.raises(TrainingError, match=r"^step 1: the gradient norm is inf at a loss of 7\."):
        trained(base)
    engine = engine_of(base, section())
    engine.skips_overflow = True
    assert [record.grad_norm for record in steps(engine, section())] == [float("inf")] * 3


def test_a_model_that_draws_for_itself_stops_the_run(base: PeftModel) -> None:
    """Noise of a router, say: it would depend on the layout."""
    engine = engine_of(base, section())
    head = engine.module.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: output + 0.01 * torch.rand(1))
    with pytest.raises(TrainingError, match=r"draws random numbers of its own while training"):
        next(steps(engine, section()))


def held_out(engine: Ddp) -> float:
    return held_out_loss(engine, RowTuple(ROWS[:7]), CAUSAL, 4).loss


def test_label_smoothing_is_part_of_the_training_loss(
    base: PeftModel, whole_batch: Trained
) -> None:
    batch = CAUSAL.collate([ROWS[i] for i in step_rows(SEED, 0, len(ROWS), 8)])
    expected = batch_nll_sum(base, batch, "causal", 0.2).item() / count_targets(
        batch["labels"], "causal"
    )
    record = trained(base, label_smoothing_factor=0.2)[0][0]
    assert record.loss == pytest.approx(expected, rel=1e-6)
    assert abs(record.loss - whole_batch[0][0].loss) > 1e-3


def test_neftune_noise_is_part_of_the_training_loss(base: PeftModel, whole_batch: Trained) -> None:
    noisy, again = (trained(base, neftune_noise_alpha=5.0) for _ in range(2))
    assert abs(noisy[0][0].loss - whole_batch[0][0].loss) > 1e-3
    check_equal(noisy, again)


@pytest.mark.parametrize("keys", [{"label_smoothing_factor": 0.2}, {"neftune_noise_alpha": 5.0}])
def test_validation_has_neither_smoothing_nor_noise(keys: dict[str, Any], base: PeftModel) -> None:
    """At a learning rate too small to move a weight, training leaves the validation loss alone."""
    chosen = section(learning_rate=1.0e-30, weight_decay=0.0, **keys)
    engine, untrained = engine_of(base, chosen), held_out(engine_of(base, section()))
    for _ in steps(engine, chosen):
        assert held_out(engine) == untrained


def test_a_validation_between_steps_changes_no_number(base: PeftModel) -> None:
    """Noise goes on as it would have, and dropout is off in the validation alone."""
    chosen = section(neftune_noise_alpha=5.0)
    engine, records = engine_of(base, chosen), []
    for record in steps(engine, chosen):
        assert engine.model.training
        held_out(engine)
        assert not engine.model.training
        torch.rand(7)
        records.append(record)
    check_equal((records, engine.trainable_state()), trained(base, neftune_noise_alpha=5.0))


def test_a_model_as_it_comes_from_its_files_is_told_of_training(base: PeftModel) -> None:
    """The adapter around it has never heard of evaluation."""
    chosen = section()
    engine = engine_of(base, chosen)
    inside: Any = engine.module
    inside.get_base_model().eval()
    assert engine.module.training
    next(iter(steps(engine, chosen)))
    assert all(module.training for module in engine.module.modules())


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_validation_loss_does_not_depend_on_the_batch_size(
    batch_size: int, base: PeftModel
) -> None:
    measured = held_out_loss(engine_of(base, section()), RowTuple(ROWS[:7]), CAUSAL, batch_size)
    exact = copy.deepcopy(base).double()
    targets = sum(map(learnt, ROWS[:7]))
    nll_sum = sum(row_nll(exact, row).item() for row in ROWS[:7])
    assert measured.target_tokens == targets
    assert measured.loss == pytest.approx(nll_sum / targets, rel=1e-6)
