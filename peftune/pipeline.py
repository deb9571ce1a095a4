"""The stages of a run in order."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console

from peftune.adapters import attach, parameter_groups
from peftune.artefacts import load_frozen, write_adapter, write_card, write_merged, write_tokenizer
from peftune.combination import check_machine
from peftune.compatibility import RUN_MARK
from peftune.context import Run
from peftune.data.report import data_report
from peftune.engines import prepare
from peftune.engines.engine import Engine, StepShape
from peftune.engines.launch import Launch, check_device
from peftune.engines.ranks import joined_ranks
from peftune.environment import versions
from peftune.errors import TrainingError
from peftune.measurement import EVAL_RESULTS, measure, report_results
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import Recipe
from peftune.records import read_json, write_json, write_text
from peftune.resolved import resolved_yaml
from peftune.selftest.perform import require_passed, selftest, write_results
from peftune.training.checkpoint import prune_checkpoints, write_checkpoint
from peftune.training.dropout import checkpoint_contexts, draw_by_rows, has_layerdrop
from peftune.training.loop import train
from peftune.training.optimizer import build_optimizer
from peftune.training.randomness import seed_initialisation
from peftune.training.reporting import Reporter
from peftune.training.selection import Selection, is_due
from peftune.training.validation import held_out_loss

TRAIN_RESULTS = "train_results.json"
DATA_REPORT = "data_report.json"


def run(recipe: Recipe, launch: Launch) -> None:
    """Train, evaluate and write everything the recipe asks for."""
    check_device(launch, torch.cuda.device_count())
    check_machine(recipe, launch, torch.cuda.device_count())
    prepared = prepare_data(recipe, shows=launch.rank == 0)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    folder = Path(recipe.output_dir)
    with joined_ranks(launch, recipe.train.report_to, str(folder)) as ranks:
        run_on_ranks(Run(recipe, launch, ranks, prepared, plan, folder))


def run_on_ranks(context: Run) -> None:
    """The part of a run that all ranks take together."""
    engine = start_engine(context, adapted_model(context))
    open_folder(context)
    with (
        trackers(context) as track,
        Reporter(
            context.ranks.is_main, context.folder, context.plan, context.recipe.train, track
        ) as reporter,
    ):
        introduce(context, engine, reporter)
        initial = engine.trainable_state()
        rehearse(context, engine, reporter, initial)
        base = measure(context, engine)
        fit(context, engine, reporter, initial)
        save(context, engine, initial)
        report_results(context, base, measure(context, engine), reporter)
        merge_and_describe(context, reporter)


def adapted_model(context: Run) -> PeftModel:
    """The frozen base with a fresh adapter, the same on every rank."""
    recipe = context.recipe
    head, device = context.prepared.head, str(context.ranks.device)
    # A new head is drawn while loading; the adapter is the same with or without one.
    seed_initialisation(recipe.seed)
    model, new = load_frozen(recipe, head, device, context.launch.sharded)
    draw_by_rows(model)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(
            {"use_reentrant": False, "context_fn": checkpoint_contexts}
        )
    seed_initialisation(recipe.seed)
    return attach(recipe.adapter, model, head.objective.task_type, new)


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


def open_folder(context: Run) -> None:
    """Create the run's folder, replacing an earlier run where the recipe allowed it."""
    if context.ranks.is_main:
        if context.folder.exists():
            shutil.rmtree(context.folder)
        context.folder.mkdir(parents=True)
        write_text(context.folder / RUN_MARK, resolved_yaml(context.recipe, context.launch))
        write_json(context.folder / DATA_REPORT, data_report(context.prepared.reports))
        launched = {**asdict(context.launch), "versions": versions()}
        write_json(context.folder / "environment.json", launched)
    context.ranks.wait()


@contextmanager
def trackers(context: Run) -> Iterator[Any]:
    """The function that sends numbers to the experiment trackers of `train.report_to`."""
    accelerator, recipe = context.ranks.accelerator, context.recipe
    name = recipe.train.run_name or context.folder.name
    accelerator.init_trackers(name, config={"task": recipe.task, "seed": recipe.seed})
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
    check_device(launch, torch.cuda.device_count())
    prepared = prepare_data(recipe, shows=launch.rank == 0)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    folder = Path(recipe.output_dir)
    with joined_ranks(launch, (), str(folder)) as ranks:
        selftest_on_ranks(Run(recipe, launch, ranks, prepared, plan, folder))


def selftest_on_ranks(context: Run) -> None:
    """The part of it that all ranks take together."""
    engine = start_engine(context, adapted_model(context))
    console = Console(quiet=not context.ranks.is_main, markup=False, emoji=False)
    initial = engine.trainable_state()
    require_passed(selftest(context, engine, initial, full=True, say=console.print))


def fit(
    context: Run, engine: Engine, reporter: Reporter, initial: Mapping[str, torch.Tensor]
) -> None:
    """Train; validate, save and stop early as the recipe says; end with the best adapter if asked.

    Every decision follows from the step or from a loss that all ranks share.
    """
    section, plan = context.recipe.train, context.plan
    selection, best_state = Selection(), None
    reporter.restart_clock()
    for record in train(context.training(engine)):
        reporter.step(record)
        if is_due(record.step, section.eval_steps, plan.total_steps):
            selection = validate(context, engine, reporter, record.step, selection)
            if selection.best_step == record.step and section.load_best_model_at_end:
                best_state = engine.trainable_state()
        if is_due(record.step, section.save_steps, plan.total_steps):
            save_checkpoint(context, engine, reporter, record.step, selection, initial)
        if selection.exhausted(section.early_stopping_patience):
            reporter.say(f"step {record.step}: stopped early; best step {selection.best_step}")
            break
    if best_state is not None:
        engine.load_trainable_state(best_state)
    if context.ranks.is_main:
        reporter.save_state(context.folder, record.step, selection)
        write_json(context.folder / TRAIN_RESULTS, reporter.train_results(record.step))


def validate(
    context: Run, engine: Engine, reporter: Reporter, step: int, selection: Selection
) -> Selection:
    batch = context.recipe.train.per_device_eval_batch_size
    rows = context.prepared.rows["validation"]
    held_out = held_out_loss(engine, rows, context.prepared.batching, batch)
    if not math.isfinite(held_out.loss):
        raise TrainingError(
            f"step {step}: the validation loss is {held_out.loss}. Lower train.learning_rate, or set "
            "model.dtype: float32."
        )
    reporter.validation(step, held_out.loss, held_out.target_tokens)
    return selection.updated(step, held_out.loss)


def save_checkpoint(
    context: Run,
    engine: Engine,
    reporter: Reporter,
    step: int,
    selection: Selection,
    initial: Mapping[str, torch.Tensor],
) -> None:
    """The adapter as of `step`, with the trainer's state beside it."""
    state = engine.trainable_state()
    if context.ranks.is_main:
        config = engine.module.peft_config["default"]

        def write(folder: Path) -> None:
            write_adapter(context.recipe, folder, config, initial, state)
            reporter.save_state(folder, step, selection)

        write_checkpoint(context.folder, step, write)
        limit = context.recipe.train.save_total_limit
        prune_checkpoints(context.folder, limit, selection.best_step)
    context.ranks.wait()


def save(context: Run, engine: Engine, initial: Mapping[str, torch.Tensor]) -> None:
    """The finished adapter with its tokenizer."""
    state = engine.trainable_state()
    if context.ranks.is_main:
        config = engine.module.peft_config["default"]
        write_adapter(context.recipe, context.folder, config, initial, state)
        write_tokenizer(context.prepared, context.folder)
    context.ranks.wait()


def merge_and_describe(context: Run, reporter: Reporter) -> None:
    """Merged model and model card, and where everything is."""
    if context.ranks.is_main:
        trained, scores = (
            read_json(context.folder / name) for name in (TRAIN_RESULTS, EVAL_RESULTS)
        )
        write_json(context.folder / "all_results.json", {**trained, **scores})
        write_card(context.recipe, context.folder, context.prepared, scores, trained)
        if context.recipe.export.merge:
            write_merged(
                context.recipe, context.prepared.head, context.folder, context.folder / "merged"
            )
        for path in sorted(context.folder.iterdir()):
            reporter.say(f"wrote {path}{os.sep if path.is_dir() else ''}")
    context.ranks.wait()


def evaluate_run(recipe: Recipe, launch: Launch, folder: Path) -> None:
    """Measure base and adapter of a finished run again, and rewrite its results."""
    check_device(launch, torch.cuda.device_count())
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    with joined_ranks(launch, (), str(folder)) as ranks:
        measure_again(Run(recipe, launch, ranks, prepared, plan, folder))


def measure_again(context: Run) -> None:
    """Base and adapter of the run's folder on the test split."""
    device, folder, head = str(context.ranks.device), context.folder, context.prepared.head
    # The base's own head is the one that training started from.
    seed_initialisation(context.recipe.seed)
    frozen, _ = load_frozen(context.recipe, head, device, context.launch.sharded)
    engine = start_engine(
        context, PeftModel.from_pretrained(frozen, str(folder), is_trainable=True)
    )
    with engine.module.disable_adapter():
        base = measure(context, engine)
    adapted = measure(context, engine)
    reporter = Reporter(
        context.ranks.is_main, folder, context.plan, context.recipe.train, lambda values, step: None
    )
    report_results(context, base, adapted, reporter)
