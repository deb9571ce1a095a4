"""A case of the contract: what is computed, and the layout it is computed in."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter

from peftune.adapters import AdapterSection, attach, parameter_groups
from peftune.artefacts import load_frozen
from peftune.data.collate import Batching
from peftune.data.rows import EncodedRow, RowTuple
from peftune.engines import prepare
from peftune.engines.engine import Engine, StepShape
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.model.head import Head
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.plan import Plan, make_plan
from peftune.quantization import QuantizationSection
from peftune.training.dropout import draw_by_rows
from peftune.training.loop import Training, train
from peftune.training.optimizer import build_optimizer
from peftune.training.recomputation import recompute
from peftune.training.section import TrainSection
from peftune.training.shortcuts import compute_fast
from peftune.training.validation import held_out_loss
from tests.contract import breaks
from tests.dequantized import dequantize_model

PAD, SEED, LABELS = 0, 3, ("no", "yes", "maybe")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """Everything a process needs to compute it."""

    folder: str
    """The base model."""
    objective: ObjectiveName
    rows: tuple[EncodedRow, ...]
    adapter: dict[str, Any]
    train: dict[str, Any]
    quantization: dict[str, Any] | None = None
    dequantized: bool = False
    """Whether the quantized weights are turned back into plain numbers first."""
    engine: str = "ddp"
    world_size: int = 1
    offload: bool = False
    eval_batch: int = 4
    dtype: str = "float32"
    attention: str = "sdpa"
    shortcuts: bool = True
    """Whether scores are computed of what is learnt alone, and updates by one function a layer."""
    evaluates: bool = False
    """Whether a validation stands after every step."""
    finished_steps: int = 0
    """Steps that another layout has taken."""
    state: tuple[Tensors, Tensors] | None = None
    """What it left: trainable parameters and optimizer state."""
    last_step: int | None = None
    """Where to stop before the end."""
    then: tuple[Tensors, Tensors] | None = None
    """What the engine takes over after `last_step`, to go on to the end."""
    broken: str = ""
    """A function of breaks.py that changes the loop first."""

    @property
    def section(self) -> TrainSection:
        return TrainSection(**self.train)

    @property
    def plan(self) -> Plan:
        chosen = self.section
        return make_plan(
            rows=len(self.rows),
            world_size=self.world_size,
            per_device=chosen.per_device_train_batch_size,
            global_batch=chosen.global_batch_size,
            accumulation=None,
            epochs=None,
            max_steps=chosen.max_steps,
            warmup_steps=1,
            warmup_ratio=None,
        )

    @property
    def batching(self) -> Batching:
        return Batching(self.objective, PAD, 0)

    def without_layout(self) -> "Case":
        """The same on one process, without padding tricks and recomputation."""
        plain = {**self.train, "padding_free": False, "gradient_checkpointing": False}
        alone = replace(self, engine="ddp", world_size=1, offload=False)
        return replace(alone, shortcuts=False, train=plain)


@dataclass
class Outcome:
    """What a case must give in every layout."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    gradients: list[Tensors] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    """The loss of all rows, at the end, and after every step if the case evaluates."""
    adapter: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)
    """The optimizer's state, on rank 0."""
    taken_over: Tensors = field(default_factory=dict)
    """The same right after a state was loaded."""
    resumed: "Outcome | None" = None
    """What came of `Case.then`."""


def adapted_model(case: Case, sharded: bool = False) -> PeftModel:
    """The frozen base with an adapter that already changes it, the same in every process."""
    head = Head(
        OBJECTIVES[case.objective], LABELS if case.objective in ("label", "tags") else (), PAD
    )
    kinds: Any = QuantizationSection
    recipe: Any = SimpleNamespace(
        model=ModelSection(
            model_name_or_path=case.folder, dtype=case.dtype, attn_implementation=case.attention
        ),
        quantization=case.quantization and TypeAdapter(kinds).validate_python(case.quantization),
    )
    torch.manual_seed(0)
    model, new = load_frozen(recipe, head, "cpu", sharded)
    if case.dequantized:
        dequantize_model(model)
        model.float()
    draw_by_rows(model)
    recompute(model, case.section.gradient_checkpointing)
    torch.manual_seed(0)
    adapted = attach(adapter_of(case), model, head.objective.task_type, new)
    compute_fast(
        adapted,
        padding_free=case.section.padding_free,
        generates=case.shortcuts and OBJECTIVES[case.objective].generates,
        sharded=sharded,
        gathers_weights=not case.shortcuts or case.engine == "zero3",
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return adapted


def adapter_of(case: Case) -> Any:
    kinds: Any = AdapterSection
    return TypeAdapter(kinds).validate_python(case.adapter)


def start(case: Case, rank: int) -> Engine:
    """The engine of one of the case's processes."""
    launch = Launch(case.engine, case.world_size, rank, True, False, case.offload)
    accelerator: Any = SimpleNamespace(
        process_index=rank,
        num_processes=case.world_size,
        device=torch.device("cpu"),
        is_main_process=rank == 0,
        state=SimpleNamespace(deepspeed_plugin=_deepspeed_plugin(case)),
    )
    section = case.section
    shape = StepShape(
        micro_batches=case.plan.micro_batches_per_step,
        per_device_batch_size=section.per_device_train_batch_size,
        max_grad_norm=section.max_grad_norm,
        precision=section.mixed_precision,
    )

    def build(parameters: list[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
        groups = parameter_groups(adapter_of(case), parameters, section.learning_rate, 0.1)
        return build_optimizer(section, groups)

    return prepare(Ranks(accelerator), launch, adapted_model(case, launch.sharded), build, shape)


def _deepspeed_plugin(case: Case) -> Any:
    if not case.engine.startswith("zero"):
        return None
    from accelerate.utils import DeepSpeedPlugin

    device = "cpu" if case.offload else "none"
    stage = int(case.engine[-1])
    parameters = device if stage == 3 else "none"
    return DeepSpeedPlugin(
        zero_stage=stage, offload_optimizer_device=device, offload_param_device=parameters
    )


def run(case: Case, rank: int = 0) -> Outcome:
    """Train the case by the product's own loop, in the process `rank` of its layout."""
    with pytest.MonkeyPatch.context() as patch:
        if case.broken:
            vars(breaks)[case.broken](patch)
        return _run(case, rank)


def _run(case: Case, rank: int) -> Outcome:
    engine, outcome = start(case, rank), Outcome()
    step = engine.step

    def recorded() -> float:
        outcome.gradients.append(engine.gradients())
        return step()

    engine.step = recorded  # type: ignore[method-assign]
    training = Training(engine, RowTuple(case.rows), case.batching, case.section, case.plan, SEED)
    if case.state is not None:
        take_over(engine, case.state, outcome)
    for record in train(training, case.finished_steps):
        outcome.losses.append(record.loss)
        outcome.norms.append(record.grad_norm)
        outcome.targets.append(record.target_tokens)
        if case.evaluates or record.step in (case.plan.total_steps, case.last_step):
            held_out = held_out_loss(engine, RowTuple(case.rows), case.batching, case.eval_batch)
            outcome.held_out.append(held_out.loss)
        if record.step == case.last_step:
            break
    outcome.adapter = engine.trainable_state()
    outcome.moments = engine.optimizer_state()
    if case.then is not None:
        outcome.resumed = resumed = Outcome()
        take_over(engine, case.then, resumed)
        for record in train(training, case.last_step or 0):
            resumed.losses.append(record.loss)
            resumed.norms.append(record.grad_norm)
        resumed.adapter = engine.trainable_state()
    return outcome


def take_over(engine: Engine, state: tuple[Tensors, Tensors], outcome: Outcome) -> None:
    """Give an engine the state of another, and note what it then has."""
    parameters, moments = state
    engine.restart(parameters)
    engine.load_optimizer_state(moments)
    outcome.taken_over = engine.optimizer_state()
