"""Memory of each phase, disk and time of a run on a layout of devices."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from peftune.engines.launch import Launch
from peftune.forecast.devices import GIB, Device
from peftune.forecast.exchange import Exchange, exchange_of
from peftune.forecast.rehearsal import Rehearsal, Subject, rehearse, tokens_per_step
from peftune.forecast.sharing import EIGHT_BITS, rank_parts
from peftune.forecast.speed import seconds_of
from peftune.forecast.tracing import GRADIENTS
from peftune.model.base import load_config
from peftune.model.location import is_local, weight_files
from peftune.model.section import ModelSection
from peftune.plan import Plan
from peftune.preparation import Prepared
from peftune.recipe import Recipe
from peftune.selftest.memory import longest_places
from peftune.tasks import TASKS

CONTEXT = int(0.75 * GIB)
"""What CUDA, its libraries and NCCL take of a GPU. An allowance: no run of ours has measured it."""
FRAGMENTS = 0.05
"""Share of activations that the caching allocator holds between blocks; an allowance as well."""

HOOKS = 35
"""What DeepSpeed's stage 3 does around a module that is called, forward and backward together, in
functions that torch is asked for; by `benchmarks/forecast.py` on two CPU ranks."""
BROADCAST_BUCKET = 250 * 2**20
"""Of torch's DistributedDataParallel, in bytes."""


@dataclass(frozen=True)
class Forecast:
    """One run on one layout. Bytes are those of the rank that has the most."""

    parts: dict[str, int]
    """Of training, when a rank holds the most."""
    phases: dict[str, int]
    """The peak of each phase on a device."""
    host: int
    """The most bytes of host memory that a rank needs for tensors."""
    disk: dict[str, int]
    flops: float
    """Operations of all products of a step, over all ranks."""
    exchange: Exchange
    step_seconds: float
    steps: int
    device: Device
    launch: Launch
    frozen: int
    trained: int
    """Parameters."""
    notes: list[str] = field(default_factory=list)

    @property
    def training_bytes(self) -> int:
        return self.phases["training"]

    @property
    def deciding(self) -> str:
        """The phase that takes the most."""
        return max(self.phases, key=lambda phase: self.phases[phase])

    @property
    def fits(self) -> bool:
        return self.phases[self.deciding] <= self.device.memory

    @property
    def hours(self) -> float:
        return self.step_seconds * self.steps / 3600


def subject_of(
    recipe: Recipe, prepared: Prepared, plan: Plan, launch: Launch, kind: str
) -> Subject:
    """The run of a recipe on its prepared data."""
    config: Any = load_config(recipe.model)
    for key, value in prepared.head.config_keys().items():
        if key != "ignore_mismatched_sizes":
            setattr(config, key, value)
    held_out = prepared.rows["validation"] or prepared.rows["test"]
    rows, head = prepared.rows["train"], prepared.head
    return Subject(
        recipe=recipe,
        config=config,
        head=head,
        batching=prepared.batching,
        rows=rows,
        held_out=held_out,
        plan=plan,
        launch=launch,
        kind=kind,
        has_pooler=has_pooler(recipe.model),
        prompts=longest_prompts(recipe, prepared),
    )


def longest_prompts(recipe: Recipe, prepared: Prepared) -> tuple[int, ...]:
    """Tokens of the longest prompts that are answered at a time, where answers are measured."""
    rows = prepared.rows["test"]
    if not rows or not prepared.objective.writes or not TASKS[recipe.task].metrics:
        return ()
    count = min(recipe.train.per_device_eval_batch_size, len(rows))
    return tuple(len(rows[i].prompt_ids) for i in longest_places(rows.lengths(), count))


def has_pooler(section: ModelSection) -> bool:
    """Whether a local checkpoint holds the pooler of an encoder; one that is not here is taken for a
    masked language model, which has none."""
    from safetensors import safe_open

    for file in weight_files(section) if is_local(section) else ():
        with safe_open(file, framework="pt") as opened:
            if any("pooler." in name for name in opened.keys()):  # noqa: SIM118
                return True
    return False


def forecast(subject: Subject, device: Device, nodes: int = 1) -> Forecast:
    """Trace a run and share it out."""
    return shared_out(subject, rehearse(subject), device, nodes)


def shared_out(subject: Subject, found: Rehearsal, device: Device, nodes: int = 1) -> Forecast:
    """The forecast of a run whose passes have been traced for its engine."""
    launch, train, plan = subject.launch, subject.recipe.train, subject.plan
    parts = rank_parts(found, launch, train.optim)
    host = parts.pop("host", 0)
    if device.kind == "cuda":
        parts["allocator and libraries"] = CONTEXT + int(FRAGMENTS * parts["activations"])
    fixed = sum(size for name, size in parts.items() if name not in ("activations", GRADIENTS))
    evaluation = found.evaluation.parts.get("activations", 0)
    phases = {
        "loading": loading_bytes(subject, found),
        "training": sum(parts.values()),
        "evaluation": fixed + evaluation,
    }
    if launch.engine == "ddp" and launch.world_size > 1:
        phases["start"] = start_bytes(found)
    if found.writing:
        phases["writing answers"] = fixed + found.writing
    passes = plan.micro_batches_per_step
    exchange = exchange_of(found, launch, passes)
    flops = sum(call.flops * count for call, count in found.calls.items())
    times = tokens_per_step(subject) / max(1.0, found.tokens)
    hooks = HOOKS * found.modules if launch.engine == "zero3" else 0.0
    computed = times * seconds_of(found.calls, found.asked, device, hooks)
    shard = 1 if launch.engine == "ddp" else launch.world_size
    # The calls of a step are traced tensor by tensor; on a GPU a kernel takes a list of them, so that
    # the host's time for each does not count.
    computed += seconds_of(found.step_calls, 0.0, replace(device, overhead=0.0)) / shard
    sent = exchange.seconds(device, nodes)
    overlaps = exchange.hidden and device.kind == "cuda"
    return Forecast(
        parts=parts,
        phases=phases,
        host=host + saving_bytes(found),
        disk=disk_bytes(subject, found),
        flops=flops * times * plan.world_size,
        exchange=exchange,
        step_seconds=(max(computed, sent) if overlaps else computed + sent) if computed else 0.0,
        steps=plan.total_steps,
        device=device,
        launch=launch,
        frozen=found.count(False),
        trained=found.count(True),
    )


def loading_bytes(subject: Subject, found: Rehearsal) -> int:
    """Before an engine has shared the weights out every device holds them whole.

    But for ZeRO-3, which takes plain weights from the host one by one. Quantized ones are made on the
    device, out of a plain one at a time.
    """
    whole = found.total(False) + found.buffers
    frozen = [one for one in found.parameters if not one.trains]
    if subject.recipe.quantization is not None:
        factor = {"bnb-int8": 2}.get(subject.recipe.quantization.method, 4)
        # Packed weights have an element for each byte; embeddings and heads stay as they are.
        return whole + factor * max((x.bytes for x in frozen if x.bytes == x.numel), default=0)
    if subject.launch.engine == "zero3":
        largest = max(one.bytes for one in frozen)
        return math.ceil(whole / subject.launch.world_size) + largest
    return whole


def start_bytes(found: Rehearsal) -> int:
    """DDP gives rank 0's model to all ranks, frozen weights too, in a flat copy of each bucket."""
    whole = found.total(False) + found.total(True) + found.buffers
    return whole + min(whole, BROADCAST_BUCKET)


def saving_bytes(found: Rehearsal) -> int:
    """Host memory of a checkpoint: what is trained and both moments, copied before they are written."""
    return 3 * found.total(True)


def disk_bytes(subject: Subject, found: Rehearsal) -> dict[str, int]:
    """Adapter, checkpoints with one that is being written, merged model."""
    recipe, adapter = subject.recipe, found.total(True)
    train = recipe.train
    saves = train.save_steps is not None or train.save_every_minutes is not None
    moments = adapter * 2 // (4 if train.optim in EIGHT_BITS else 1)
    kept = (train.save_total_limit + 1) * (adapter + moments) if saves else 0
    # Packed weights hold two of the model's in a byte.
    size = {"float32": 4, "bfloat16": 2, "float16": 2}[recipe.model.dtype]
    merged = size * plain_parameters(subject) if recipe.export.merge else 0
    return {"adapter": adapter, "checkpoints": kept, "merged model": merged}


def plain_parameters(subject: Subject) -> int:
    """Parameters of the base model, whatever its weights are packed in."""
    import torch
    from transformers.models.auto import modeling_auto

    with torch.device("meta"):
        model = modeling_auto.__dict__[subject.head.objective.auto_class].from_config(
            subject.config
        )
    return int(model.num_parameters())
