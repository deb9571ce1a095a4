"""What two sections and the launcher must agree on, checked before anything heavy is loaded."""

import os
import tempfile
from pathlib import Path

from peftune.checkpoint.folder import checkpoint_steps
from peftune.combination import check_combination
from peftune.data.roles import check_roles
from peftune.engines.launch import Claim, Launch
from peftune.environment import NOT_INSTALLED, installed
from peftune.errors import LaunchError, RecipeError
from peftune.model.location import check_model_files
from peftune.plan import global_batch_size
from peftune.recipe import Recipe
from peftune.records import read_json
from peftune.resolved import origins, typed
from peftune.tasks import TASKS
from peftune.unread import BY_RECIPE, refuse_unread

RUN_MARK, FINISHED = "recipe.yaml", "all_results.json"
"""What is written first into a run's folder, and what last."""
ENVIRONMENT = "environment.json"


def check_recipe(recipe: Recipe, launch: Launch) -> None:
    """Raise RecipeError for the first combination that cannot work; imports no torch."""
    refuse_unread(recipe, BY_RECIPE, recipe)
    check_claims(recipe, launch)
    global_batch_size(
        recipe.train.per_device_train_batch_size,
        launch.world_size,
        recipe.train.global_batch_size,
        recipe.train.gradient_accumulation_steps,
    )
    check_combination(recipe, launch)
    _check_trackers(recipe)
    check_roles(recipe.data, TASKS[recipe.task].roles)
    check_model_files(recipe.model)
    check_output_folder(recipe, launch)


def check_claims(recipe: Recipe, launch: Launch) -> None:
    """Raise LaunchError for each number that recipe and launcher set differently."""
    found = origins(recipe)
    problems = []
    for claim in launch.claims:
        key, value, meaning = _decided(recipe, launch, claim)
        if not _agree(claim.value, value):
            section, name = key.split(".")
            shown = typed(recipe.__dict__[section].__dict__[name])
            problems.append(
                f"{key}: {shown} ({found[section, name]}){meaning}, but the launcher says "
                f"{claim.value} in {claim.place}; remove it there, as the recipe decides this."
            )
    if problems:
        raise LaunchError("\n".join(problems))


def _decided(recipe: Recipe, launch: Launch, claim: Claim) -> tuple[str, str, str]:
    """The key of the recipe that decides what the launcher claims, its value, and how it is meant."""
    train = recipe.train
    if claim.key != "train.gradient_accumulation_steps" or train.global_batch_size is None:
        return claim.key, typed(train.__dict__[claim.key.partition(".")[2]]), ""
    per_pass = train.per_device_train_batch_size * launch.world_size
    passes = f"{train.global_batch_size / per_pass:g}"
    return "train.global_batch_size", passes, f" takes {passes} forward passes per step"


def _agree(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _check_trackers(recipe: Recipe) -> None:
    """Accelerate leaves out a tracker that is not there without a word."""
    for name in recipe.train.report_to:
        if installed(name) == NOT_INSTALLED:
            raise RecipeError(
                f"train.report_to: {name} is not installed; pip install 'peftune[trackers]', or "
                "remove it."
            )


def check_output_folder(recipe: Recipe, launch: Launch) -> None:
    """The output folder must be new or empty, or hold a run that may go on or be replaced."""
    folder = Path(recipe.output_dir)
    # os.path answers False for a place that may not be looked into, where pathlib raises.
    if os.path.isfile(folder):
        raise RecipeError(f"output_dir: {recipe.output_dir!r} is a file; name a folder.")
    if os.path.isdir(folder) and _holds_something(folder):
        _check_run(recipe, folder, began_here(folder, launch))
    named = recipe.resume.checkpoint
    if named not in (None, "auto") and not os.path.isdir(folder / named):
        raise RecipeError(
            f"resume.checkpoint: {named} is not in {recipe.output_dir!r}; name one that is there, or "
            "resume: auto."
        )
    parent = next(place for place in folder.absolute().parents if os.path.exists(place))
    try:
        # Permission bits do not tell: root, full disks and read-only mounts all have their own way.
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise RecipeError(
            f"output_dir: {recipe.output_dir!r} cannot be created, because nothing can be written "
            f"to {parent}; name another folder."
        ) from error


def began_here(folder: Path, launch: Launch) -> bool:
    """Whether the run in `folder` was begun by the same job, which has been started again since."""
    began = read_json(folder / ENVIRONMENT).get("started_by")
    return launch.restarts > 0 and began == launch.started_by


def _holds_something(folder: Path) -> bool:
    """A run that was killed over its first file has left nothing."""
    return any(path.name != f"{RUN_MARK}.partial" for path in folder.iterdir())


def _check_run(recipe: Recipe, folder: Path, began: bool) -> None:
    wanted, is_run = recipe.resume.checkpoint, (folder / RUN_MARK).is_file()
    if is_run and (wanted or recipe.overwrite_output_dir or began):
        return
    if is_run:
        raise RecipeError(f"output_dir: {recipe.output_dir!r} {_held(folder)}")
    if not wanted and not recipe.overwrite_output_dir:
        raise RecipeError(
            f"output_dir: {recipe.output_dir!r} is not empty and holds no run of peftune; name "
            "another folder."
        )
    key = f"resume: {wanted}" if wanted else "overwrite_output_dir"
    raise RecipeError(
        f"{key}: {recipe.output_dir!r} holds no earlier run of peftune and is left alone; name "
        "another folder."
    )


def _held(folder: Path) -> str:
    if (folder / FINISHED).is_file():
        return "holds a finished run. Name another folder, or replace it with overwrite_output_dir: true."
    steps = checkpoint_steps(folder)
    newest = f"its newest checkpoint is checkpoint-{steps[-1]}" if steps else "without a checkpoint"
    return (
        f"holds a run that has not finished, {newest}. Go on with resume: auto, or start again with "
        "overwrite_output_dir: true."
    )
