"""The stages of a run in order."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel

from peftune.adapters import attach, parameter_groups
from peftune.adapters.lora import LoraSection
from peftune.artefacts import load_frozen
from peftune.checkpoint.folder import checkpoint_steps
from peftune.combination import check_machine
from peftune.context import Run
from peftune.engines import prepare
from peftune.engines.engine import Engine, StepShape
from peftune.engines.launch import Launch, check_device
from peftune.engines.ranks import joined_ranks
from peftune.errors import RecipeError, StorageError
from peftune.export.places import check_places
from peftune.fitting import Fit, fit
from peftune.forecast.records import MemoryWatch
from peftune.measurement import (
    measure,
    report_merged,
    report_results,
    require_room_for_answers,
)
from peftune.model.base import load_skeleton
from peftune.model.unpadding import is_unpadded
from peftune.preflight.perform import check_links, preflight
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import Recipe
from peftune.resuming import (
    Beginning,
    beginning,
    identity_of,
    open_folder,
    restore,
)
from peftune.selftest.perform import require_passed, selftest, write_results
from peftune.shipping import MERGED, measured, merge_and_describe, save
from peftune.signals import Signals
from peftune.training.dropout import draw_by_rows, has_layerdrop
from peftune.training.fused_lora import has_fused
from peftune.training.optimizer import build_optimizer
from peftune.training.randomness import seed_initialisation
from peftune.training.recomputation import recompute
from peftune.training.reporting import Reporter
from peftune.training.shortcuts import compute_fast
from peftune.training.tracking import resumed_arguments, tracker_ids


def run(recipe: Recipe, launch: Launch) -> None:
    """Train, evaluate and write everything the recipe asks for, or what is left of it.

    Raises Interrupted when a signal or `train.max_hours` stops it before the end.
    """
    started, folder = time.monotonic(), Path(recipe.output_dir)
    with Signals(patient=bool(launch.job)) as signals, naming_the_checkpoint(folder):
        check_machine(recipe, launch, torch.cuda.device_count())
        with on_ranks(recipe, launch, folder, recipe.train.report_to) as context:
            run_on_ranks(context, signals, started)


@contextmanager
def on_ranks(
    recipe: Recipe, launch: Launch, folder: Path, log_with: tuple[str, ...] = ()
) -> Iterator[Run]:
    """Inside, all ranks have met, have their rows and know each other; nothing heavy is loaded yet."""
    check_device(launch, torch.cuda.device_count())
    meeting = preflight(recipe, launch)
    prepared = prepare_data(recipe, shows=launch.rank == 0)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    with joined_ranks(launch, log_with, str(folder), recipe.ranks, meeting) as ranks:
        check_links(ranks, recipe, prepared)
        yield Run(recipe, launch, ranks, prepared, plan, folder)


@contextmanager
def naming_the_checkpoint(folder: Path) -> Iterator[None]:
    """A disk that takes nothing more leaves the last checkpoint whole, and the message says which."""
    try:
        yield
    except StorageError as error:
        steps = checkpoint_steps(folder) if folder.is_dir() else []
        kept = f"The last good checkpoint is {folder / f'checkpoint-{steps[-1]}'}." if steps else ""
        raise StorageError(f"{error} {kept}".strip()) from error


def run_on_ranks(context: Run, signals: Signals, started: float) -> None:
    """The part of a run that all ranks take together."""
    identity = identity_of(context)
    start = context.ranks.from_main(lambda: beginning(context, identity))
    console = Console(stderr=True, quiet=not context.ranks.is_main, markup=False, emoji=False)
    for note in start.notes:
        console.print(note, highlight=False, soft_wrap=True)
    if start.finished:
        return
    watch = MemoryWatch(context.ranks)
    watch.at("loading the model")
    engine = start_engine(context, adapted_model(context))
    open_folder(context, start)
    context.ranks.keep_record(context.folder)
    if context.ranks.is_main:
        # The first checkpoint wants it, and hashing the base weights takes a while.
        Thread(target=identity, name="identity", daemon=True).start()
    with (
        trackers(context, start) as track,
        Reporter(
            context.ranks.is_main, context.folder, context.plan, context.recipe.train, track
        ) as reporter,
    ):
        introduce(context, engine, reporter)
        initial = engine.trainable_state()
        watch.at("the self-test")
        rehearse(context, engine, reporter, initial)
        require_room_for_answers(context, engine)
        ids = partial(tracker_ids, context.ranks.accelerator)
        job = Fit(context, engine, reporter, initial, identity, signals, started, ids)
        watch.at("training")
        fit(job, restore(context, engine, reporter, start, initial))
        watch.at("the final evaluation")
        save(context, engine, initial)
        report_results(context, *measured(context, engine, initial), reporter)
        watch.at("writing the results")
        watch.write(context.folder, context.launch.engine)
        merge_and_describe(context, reporter)


def adapted_model(context: Run) -> PeftModel:
    """The frozen base with a fresh adapter, the same on every rank."""
    recipe = context.recipe
    head, device = context.prepared.head, str(context.ranks.device)
    # A new head is drawn while loading; the adapter is the same with or without one.
    seed_initialisation(recipe.seed)
    model, new = load_frozen(recipe, head, device, context.launch.sharded)
    draw_by_rows(model)
    recompute(model, recipe.train.gradient_checkpointing)
    seed_initialisation(recipe.seed)
    adapted = attach(recipe.adapter, model, head.objective.task_type, new)
    return fast(context, adapted)


def fast(context: Run, adapted: PeftModel) -> PeftModel:
    """The model with every shortcut that recipe and engine allow."""
    return compute_fast(
        adapted,
        padding_free=context.recipe.train.padding_free,
        generates=context.prepared.head.objective.generates,
        sharded=context.launch.sharded,
        gathers_weights=context.launch.engine == "zero3",
    )


def start_engine(context: Run, model: PeftModel) -> Engine:
    """Hand the model to the engine that the launcher chose."""
    train_section, adapter = context.recipe.train, context.recipe.adapter

    def build(parameters: list[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
        rate, decay = train_section.learning_rate, train_section.weight_decay
        return build_optimizer(train_section, parameter_groups(adapter, parameters, rate, decay))

    shape = StepShape(
        micro_batches=context.plan.micro_batches_per_step,
        per_device_batch_size=train_section.per_device_train_batch_size,
        max_grad_norm=train_section.max_grad_norm,
        precision=train_section.mixed_precision,
    )
    return prepare(context.ranks, context.launch, model, build, shape)


@contextmanager
def trackers(context: Run, start: Beginning) -> Iterator[Any]:
    """The function that sends numbers to the experiment trackers of `train.report_to`."""
    accelerator, recipe = context.ranks.accelerator, context.recipe
    ids = start.progress.trackers if start.progress else {}
    accelerator.init_trackers(
        recipe.train.run_name or context.folder.name,
        config={"task": recipe.task, "seed": recipe.seed},
        init_kwargs=resumed_arguments(ids, start.found.step),
    )
    try:
        yield lambda values, step: accelerator.log(dict(values), step=step)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def introduce(context: Run, engine: Engine, reporter: Reporter) -> None:
    """Say what will be trained, on what, and in how many steps."""
    trainable = sum(p.numel() for p in engine.module.parameters() if p.requires_grad)
    for report in context.prepared.reports.values():
        reporter.say(str(report))
    plan = context.plan
    reporter.say(
        f"{trainable:,} trainable parameters, {context.launch.engine} on {plan.world_size} "
        f"process(es), {plan.total_steps} steps of {plan.global_batch_size} rows"
    )
    base = engine.module.get_base_model()
    assert isinstance(base, PreTrainedModel)
    if context.recipe.train.padding_free and not is_unpadded(base):
        reporter.say(
            f"train.padding_free: the code of {base.config.model_type} computes padding too, so rows of "
            "like length share a forward pass"
        )
    if context.recipe.train.gradient_checkpointing == "selective" and not has_fused(engine.module):
        reporter.say(
            "train.gradient_checkpointing: selective: only plain LoRA layers keep their products, not "
            "under ZeRO-3; here whole layers are computed again, as with true"
        )
    if has_layerdrop(engine.module):
        reporter.say("LayerDrop of this model is off: it would skip layers for whole batches")


def rehearse(
    context: Run, engine: Engine, reporter: Reporter, initial: dict[str, torch.Tensor]
) -> None:
    """The self-test, before anything that takes long. Raises PeftuneError when it fails."""
    results = selftest(context, engine, initial, context.recipe.selftest.full, reporter.say)
    write_results(context, results)
    require_passed(results)


def selftest_recipe(recipe: Recipe, launch: Launch) -> None:
    """`peftune selftest`: every check on the recipe as it would be trained; writes nothing."""
    with on_ranks(recipe, launch, Path(recipe.output_dir)) as context:
        selftest_on_ranks(context)


def selftest_on_ranks(context: Run) -> None:
    """The part of it that all ranks take together."""
    engine = start_engine(context, adapted_model(context))
    console = Console(quiet=not context.ranks.is_main, markup=False, emoji=False)
    initial = engine.trainable_state()
    require_passed(selftest(context, engine, initial, full=True, say=console.print))


def evaluate_run(recipe: Recipe, launch: Launch, folder: Path, merged: bool = False) -> None:
    """Measure base and adapter of a finished run again, and rewrite its results; or its merged model,
    beside them. Raises RecipeError for a run without one."""
    if merged and not (folder / MERGED).is_dir():
        raise RecipeError(f"{folder / MERGED} is not there; make it with `peftune merge {folder}`.")
    with on_ranks(recipe, launch, folder) as context:
        if merged:
            measure_merged(context)
        else:
            measure_again(context)


def measure_again(context: Run) -> None:
    """Base and adapter of the run's folder on the test split."""
    device, folder, head = str(context.ranks.device), context.folder, context.prepared.head
    check_places(load_skeleton(context.recipe.model, head), folder)
    # The base's own head is the one that training started from.
    seed_initialisation(context.recipe.seed)
    frozen, _ = load_frozen(context.recipe, head, device, context.launch.sharded)
    trained = PeftModel.from_pretrained(frozen, str(folder), is_trainable=True)
    engine = start_engine(context, fast(context, trained))
    with engine.module.disable_adapter():
        base = measure(context, engine)
    adapted = measure(context, engine)
    reporter = Reporter(
        context.ranks.is_main, folder, context.plan, context.recipe.train, lambda values, step: None
    )
    report_results(context, base, adapted, reporter)


def measure_merged(context: Run) -> None:
    """The merged model of the run's folder on the test split."""
    merged = context.folder / MERGED
    place = {"model_name_or_path": str(merged), "revision": None}
    model = context.recipe.model.model_copy(update=place)
    # An engine wants something that could learn; an adapter that has not changes nothing.
    untrained = LoraSection.model_validate({"method": "lora", "r": 1})
    keys = {"model": model, "quantization": None, "adapter": untrained}
    bare = replace(context, recipe=context.recipe.model_copy(update=keys))
    engine = start_engine(bare, adapted_model(bare))
    report_merged(context, measure(bare, engine), merged)
