"""A run's largest passes and one like most, gone through by the code of a training in a trace."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from peftune.adapters import parameter_groups
from peftune.data.collate import Batch, Batching
from peftune.data.order import computed_tokens
from peftune.data.rows import Rows
from peftune.engines import prepare
from peftune.engines.engine import Engine, StepShape, trainable_parameters
from peftune.engines.launch import Launch
from peftune.engines.ranks import Ranks
from peftune.forecast.answering import writing_bytes
from peftune.forecast.calls import Asking, Call, counted_modules
from peftune.forecast.skeleton import adapted_skeleton
from peftune.forecast.tracing import GRADIENTS, Peak, Trace, tracing
from peftune.model.head import Head
from peftune.plan import Plan
from peftune.recipe import Recipe
from peftune.selftest.memory import computed, largest_micro_batch, longest_places
from peftune.training.draws import RowDraws, row_draws
from peftune.training.loop import Training, named_batch, training_nll_sum
from peftune.training.loss import batch_nll_sum
from peftune.training.optimizer import build_optimizer

TYPICAL_STEPS = 64
"""Steps whose passes the typical one is chosen among."""


@dataclass(frozen=True)
class Subject:
    """A run that is planned: everything but its weights."""

    recipe: Recipe
    config: PretrainedConfig
    head: Head
    batching: Batching
    rows: Rows
    held_out: Rows
    plan: Plan
    launch: Launch
    kind: str
    """`cpu` or `cuda`."""
    has_pooler: bool = False
    """Whether the checkpoint holds a pooler; those of masked language models do not."""
    prompts: tuple[int, ...] = ()
    """Tokens of the longest prompts that are answered at a time; none where nothing is written."""


@dataclass(frozen=True)
class Tensor:
    """One parameter: what matters of it for an engine."""

    name: str
    numel: int
    bytes: int
    trains: bool
    dim: int
    """Its first dimension."""
    again: bool = True
    """Whether the backward pass asks for it too; for an embedding not, unless it scores words."""


@dataclass(frozen=True)
class Rehearsal:
    """What the passes of one process took that has the whole model."""

    parameters: tuple[Tensor, ...]
    buffers: int
    """Bytes of the model beside its parameters, such as the scales of quantized weights."""
    training: Peak
    """Forward and backward of the largest micro-batch, in a step after the first."""
    forward: int
    """Bytes of activations that its forward pass reaches before it scores words."""
    step: Peak
    evaluation: Peak
    writing: int
    """Bytes of the cache and what else is held while answers are written."""
    calls: Counter[Call]
    """Of forward and backward of a micro-batch of `tokens` tokens."""
    tokens: float
    step_calls: Counter[Call]
    asked: int
    """Functions of torch that Python asks for in that pass, those too that compute nothing."""
    modules: int
    """Modules that are called in that pass."""
    rows: int
    width: int
    """Rows and longest row of the largest micro-batch."""

    def total(self, trains: bool) -> int:
        """Bytes of all parameters that train, or that do not."""
        return sum(one.bytes for one in self.parameters if one.trains is trains)

    def count(self, trains: bool) -> int:
        return sum(one.numel for one in self.parameters if one.trains is trains)


def rehearse(subject: Subject) -> Rehearsal:
    """Trace the passes of a run. Raises ModelError and what else attaching an adapter raises."""
    _warm(subject)
    with tracing(subject.kind) as trace:
        engine = _engine(subject, trace)
        training = _training(subject, engine)
        _make_optimizer_state(engine, trace)
        largest = largest_micro_batch(training)
        passes = min(2, subject.plan.micro_batches_per_step)
        with trace.phase("activations") as peak:
            forward = _pass(training, [largest] * passes, trace)
        with trace.phase("optimizer") as step:
            engine.step()
        step_calls = trace.calls
        typical = _typical(training)
        with trace.phase("activations"), counted_modules() as modules, Asking() as asking:
            _pass(training, [typical], trace)
        calls = trace.calls
        engine.optimizer.zero_grad(set_to_none=True)
        with trace.phase("activations") as evaluation:
            _evaluate(training, subject.held_out)
        new_tokens = subject.recipe.evaluation.max_new_tokens
        prompts = [*subject.prompts]
        writing = writing_bytes(engine, prompts, new_tokens, trace) if prompts else 0
        parameters = tuple(_parameters(engine, bool(subject.recipe.train.gradient_checkpointing)))
        known = sum(one.bytes for one in parameters)
        weights = trace.parts["weights"] + trace.parts["adapter"]
        return Rehearsal(
            parameters,
            max(0, weights - known),
            peak,
            forward,
            step,
            evaluation,
            writing,
            calls,
            float(training.sizes[typical].sum()),
            step_calls,
            asking.count,
            sum(modules.values()),
            len(largest),
            int(training.rows.lengths()[largest, 0].max()),
        )


def _warm(subject: Subject) -> None:
    """bitsandbytes makes its code books once, out of numbers that a trace would not have."""
    if subject.recipe.quantization is not None:
        from bitsandbytes.functional import quantize_4bit

        quantize_4bit(torch.zeros(64), compress_statistics=True)


def _engine(subject: Subject, trace: Trace) -> Engine:
    """One process with the whole model; what engines of several ranks add is arithmetic."""
    recipe = subject.recipe
    model = adapted_skeleton(
        recipe, subject.config, subject.head, subject.has_pooler, subject.launch, trace
    )
    # Those of bitsandbytes need a GPU to be built, and torch's fused one tensors with numbers.
    section = recipe.train.model_copy(update={"optim": "adamw_torch"})
    accelerator: Any = SimpleNamespace(
        process_index=0, num_processes=1, device=torch.device("cpu"), is_main_process=True
    )
    rate, decay = section.learning_rate, section.weight_decay
    precision: Literal["no", "bf16"] = "no" if section.mixed_precision == "no" else "bf16"
    return prepare(
        Ranks(accelerator),
        Launch("ddp", 1, 0, True, False, False),
        model,
        lambda named: build_optimizer(
            section, parameter_groups(recipe.adapter, named, rate, decay)
        ),
        StepShape(1, section.per_device_train_batch_size, section.max_grad_norm, precision),
    )


def _training(subject: Subject, engine: Engine) -> Training:
    recipe = subject.recipe
    return Training(engine, subject.rows, subject.batching, recipe.train, subject.plan, recipe.seed)


def _make_optimizer_state(engine: Engine, trace: Trace) -> None:
    """As after the first step: gradients of nothing, and the state that a step leaves behind."""
    with trace.phase("optimizer"):
        for _, parameter in trainable_parameters(engine.module):
            parameter.grad = torch.zeros_like(parameter)
            parameter.register_post_accumulate_grad_hook(
                lambda one: trace.relabel(one.grad, GRADIENTS)
            )
        engine.step()


def _pass(training: Training, shares: Sequence[Sequence[int]], trace: Trace) -> int:
    """Forward and backward of micro-batches, one after another; the most activations before the first
    scores of words, or where there are none in the first forward pass."""
    training.engine.model.train()
    base: Any = training.engine.module
    with _noting_scores(base.get_base_model(), trace) as reached:
        for index, share in enumerate(shares):
            batch = _batch(training, share)
            with training.engine.micro_batch(last=index == len(shares) - 1):
                nll = training_nll_sum(training, batch, _planned(row_draws(0, 0, batch)))
                reached.append(trace.peak.parts.get("activations", 0))
                training.engine.backward(nll)
    return reached[0]


@contextmanager
def _noting_scores(model: PreTrainedModel, trace: Trace) -> Iterator[list[int]]:
    """The most activations so far, each time that the output layer for words is called."""
    reached: list[int] = []
    scoring = model.get_output_embeddings()
    if scoring is None:
        yield reached
        return
    hook = scoring.register_forward_pre_hook(
        lambda *_: reached.append(trace.peak.parts.get("activations", 0))
    )
    try:
        yield reached
    finally:
        hook.remove()


def _planned(draws: RowDraws) -> RowDraws:
    """The same draws without values: as many numbers as a model drops are not worth drawing here."""
    meta = torch.device("meta")
    return replace(
        draws,
        keys=torch.empty(draws.keys.shape, device=meta).to(torch.int64),
        step_key=torch.empty(draws.step_key.shape, device=meta).to(torch.int64),
    )


def _batch(training: Training, share: Sequence[int]) -> Batch:
    rows, batching = training.rows, training.batching
    return named_batch(batching, [batching.drawn(rows[i], i, 0) for i in share], [*share])


@torch.no_grad()
def _evaluate(training: Training, held_out: Rows) -> None:
    """A validation pass over the longest held-out rows."""
    if not len(held_out):
        return
    engine, batching = training.engine, training.batching
    engine.module.eval()
    count = min(training.section.per_device_eval_batch_size, len(held_out))
    places = longest_places(held_out.lengths(), count)
    batch = batching.collate([batching.drawn(held_out[i], i) for i in places])
    with engine.autocast():
        batch_nll_sum(engine.module, batch, batching.objective)


def _typical(training: Training) -> list[int]:
    """The micro-batch whose tokens are nearest to the mean."""
    plan = training.plan
    shares = [
        [row for row in share if row is not None]
        for step in range(min(plan.total_steps, TYPICAL_STEPS))
        for share in training.shares(step, 0)
    ]
    sizes = np.array([computed(training, share) for share in shares])
    return shares[int(np.abs(sizes - sizes.mean()).argmin())]


def tokens_per_step(subject: Subject, unpadded: bool = True) -> float:
    """What a step computes on one rank, in tokens, on average."""
    lengths = subject.rows.lengths()
    both = subject.batching.objective in ("seq2seq", "corrupted")
    sizes = (lengths.sum(axis=1) if both else lengths[:, 0]).tolist()
    per_row = computed_tokens(sizes, unpadded) / len(sizes)
    return per_row * subject.plan.global_batch_size / subject.plan.world_size


def _parameters(engine: Engine, recomputed: bool) -> list[Tensor]:
    seen: dict[int, Tensor] = {}
    base: Any = engine.module.get_base_model()
    # Layers that are computed again ask for gradients by their inputs, so embeddings are asked too.
    once = set() if recomputed else _read_once(base)
    for name, one in engine.module.named_parameters():
        size = one.numel() * one.element_size()
        first = one.shape[0] if one.dim() else 1
        made = Tensor(name, one.numel(), size, one.requires_grad, first, id(one) not in once)
        seen.setdefault(id(one), made)
    return [*seen.values()]


def _read_once(model: PreTrainedModel) -> set[int]:
    """Weights of embeddings that are nothing else as well, by their identity."""
    tables = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    scoring = model.get_output_embeddings()
    return tables if scoring is None else tables - {id(scoring.weight)}
