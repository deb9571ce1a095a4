"""How a run begins: in a new folder, or where a checkpoint of the same run ends."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from peftune.checkpoint.folder import (
    NOTHING,
    Found,
    checkpoint_steps,
    find_checkpoint,
    set_aside_after,
)
from peftune.checkpoint.identity import (
    differences,
    plan_identity,
    recipe_identity,
    require_same,
    run_identity,
    start_identity,
    weights_digest,
)
from peftune.checkpoint.state import Progress, State, read_progress, read_state
from peftune.compatibility import ENVIRONMENT, FINISHED, RUN_MARK, began_here
from peftune.context import Run
from peftune.data.report import data_report
from peftune.engines.engine import Engine
from peftune.environment import versions
from peftune.errors import CheckpointError
from peftune.preparation import plan_for
from peftune.recipe import load_recipe
from peftune.records import read_json, write_json, write_text
from peftune.resolved import resolved_yaml
from peftune.training.reporting import METRICS, Reporter
from peftune.training.selection import Selection

DATA_REPORT = "data_report.json"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Beginning:
    """What was decided before anything heavy is loaded; the same on every rank."""

    found: Found
    progress: Progress | None
    notes: tuple[str, ...]
    finished: bool = False
    """The run is complete and there is nothing to do."""


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    step: int = 0
    selection: Selection = field(default_factory=Selection)
    best: Tensors | None = None


def beginning(context: Run, identity: Callable[[], dict[str, Any]]) -> Beginning:
    """Look at the run's folder, on rank 0.

    Raises CheckpointError for checkpoints that cannot be used or belong to another run.
    """
    wanted = wanted_checkpoint(context)
    if wanted is None or not (context.folder / RUN_MARK).is_file():
        return Beginning(NOTHING, None, ())
    changed = changed_since_end(context)
    if changed is not None and not changed:
        note = f"{context.folder} is complete; there is nothing to do"
        return Beginning(NOTHING, None, (note,), finished=True)
    found = find_checkpoint(context.folder, wanted)
    if found.folder is None:
        note = f"{context.folder} has no checkpoint yet; training starts at step 0"
        return Beginning(found, None, (*found.notes, note))
    progress = read_progress(found.folder)
    allowed = context.recipe.resume.allow
    notes = [*found.notes, f"resuming from {found.folder}"]
    notes += require_same(without_start(progress.identity), identity(), allowed, found.folder)
    notes += changed_versions(progress)
    return Beginning(found, progress, tuple(notes))


def wanted_checkpoint(context: Run) -> str | None:
    """What the recipe asks for; a restart by the launcher goes on with what its processes began."""
    began = began_here(context.folder, context.launch)
    return "auto" if began else context.recipe.resume.checkpoint


def changed_since_end(context: Run) -> dict[str, str] | None:
    """What of the recipe is different from that of the finished run in the folder; None without one.

    Raises CheckpointError where the run has no checkpoint to go on from with other values.
    """
    folder = context.folder
    if not (folder / FINISHED).is_file():
        return None
    old, world_size = load_recipe(folder / RUN_MARK), read_json(folder / ENVIRONMENT)["world_size"]
    then = recipe_identity(old) | plan_identity(plan_for(old, context.plan.rows, world_size))
    now = recipe_identity(context.recipe) | plan_identity(context.plan)
    changed = differences(then, now)
    if changed and not checkpoint_steps(folder):
        listed = "; ".join(f"{key}: {change}" for key, change in changed.items())
        raise CheckpointError(
            f"resume: {folder} is a finished run with other values and no checkpoint: {listed}. Name "
            "another folder, or start again with resume: null and overwrite_output_dir: true."
        )
    return changed


def without_start(identity: Any) -> dict[str, Any]:
    """What is known of a run before its adapter is made."""
    return {key: value for key, value in identity.items() if key != "adapter.start"}


def changed_versions(progress: Progress) -> list[str]:
    """Other versions may round differently, which is worth knowing."""
    now, then = versions(), progress.versions
    changed = [f"{name} {then.get(name)} → {now[name]}" for name in now if now[name] != then[name]]
    return [f"saved with other versions: {', '.join(changed)}"] if changed else []


def identity_of(context: Run) -> Callable[[], dict[str, Any]]:
    """What the run's numbers depend on, computed when it is first asked for, on rank 0."""
    prepared = context.prepared

    @cache
    def compute() -> dict[str, Any]:
        weights = weights_digest(context.recipe.model)
        return run_identity(
            context.recipe, context.plan, prepared.stores, prepared.tokenizer, weights
        )

    return compute


def open_folder(context: Run, start: Beginning) -> None:
    """Create the run's folder, or bring the one of a run that goes on to where its checkpoint was."""
    if context.ranks.is_main:
        if start.progress is None:
            clear(context.folder)
        else:
            set_aside_after(context.folder, start.found.step)
            (context.folder / FINISHED).unlink(missing_ok=True)
            for outdated in context.folder.glob("merged*"):
                shutil.rmtree(outdated)
            log = context.folder / METRICS
            if log.is_file():
                written = int(start.progress.totals["metrics_bytes"])
                os.truncate(log, min(log.stat().st_size, written))
        write_text(context.folder / RUN_MARK, resolved_yaml(context.recipe, context.launch))
        launched = {
            **asdict(context.launch),
            "versions": versions(),
            "started_by": context.launch.started_by,
            "total_steps": context.plan.total_steps,
        }
        write_json(context.folder / ENVIRONMENT, launched)
        reports = data_report(context.prepared.reports, context.prepared.stores)
        write_json(context.folder / DATA_REPORT, reports)
    context.ranks.wait()


def clear(folder: Path) -> None:
    """An empty folder. What marks it as a run goes last, so that a kill leaves no unknown remains."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN_MARK):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def restore(
    context: Run, engine: Engine, reporter: Reporter, start: Beginning, initial: Tensors
) -> Start:
    """Give engine and reporter what they had when the checkpoint was saved."""
    if start.progress is None:
        return Start()
    folder, progress = start.found.folder, start.progress
    assert folder is not None

    own: list[State] = []

    def read() -> None:
        state = read_state(folder)
        state.check(initial, folder)
        saved = {k: v for k, v in progress.identity.items() if k == "adapter.start"}
        allowed = context.recipe.resume.allow
        require_same(saved, start_identity(context.recipe, initial), allowed, folder)
        own.append(state)

    ranks = context.ranks
    ranks.from_main(read)
    state = own[0] if ranks.is_main else State({}, {})
    engine.restart(ranks.tensors_from_main(state.parameters))
    engine.load_optimizer_state(ranks.tensors_from_main(state.optimizer))
    best = ranks.tensors_from_main(state.best)
    reporter.restore(progress.totals)
    return Start(progress.step, progress.selection, best or None)
