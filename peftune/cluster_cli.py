"""The verbs of the `peftune` command that deal with machines: each calls one function."""

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from peftune.engines.launcher_file import DEFAULT, read_launcher_file
from peftune.schedulers import kubernetes, local, slurm
from peftune.schedulers.job import Job, Limits, make_job, read_site
from peftune.verbs import Debug, Overrides, RecipePath, RunFolder, exit_after


class Scheduler(StrEnum):
    """What starts the ranks."""

    LOCAL = "local"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    PYTORCHJOB = "pytorchjob"


SCHEDULERS: dict[Scheduler, Any] = {
    Scheduler.LOCAL: local,
    Scheduler.SLURM: slurm,
    Scheduler.KUBERNETES: kubernetes.JOB_SET,
    Scheduler.PYTORCHJOB: kubernetes.PYTORCH_JOB,
}


def launch(
    recipe: RecipePath,
    overrides: Overrides = None,
    on: Annotated[Scheduler, typer.Option(help="What starts the ranks.")] = Scheduler.LOCAL,
    config_file: Annotated[Path, typer.Option(help="The launcher's file.")] = DEFAULT,
    site: Annotated[Path | None, typer.Option(help="The cluster's file.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Default: the launcher's file.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Ranks of all nodes.")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Time limit of the job.")] = None,
    grace: Annotated[int, typer.Option(min=1, help="Seconds before it to save and stop.")] = 120,
    restarts: Annotated[int | None, typer.Option(min=0, help="Starts after the first.")] = None,
    sweep: Annotated[list[str] | None, typer.Option(help="key=value,value: a run of each.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print it, start nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Start a run on a cluster or here.
    Example: peftune launch recipes/summarize.yaml --on slurm --nodes 2 --dry-run"""

    def job() -> Job:
        file, limits = read_launcher_file(config_file), Limits(minutes, grace, restarts)
        layout = (nodes, processes)
        return make_job(recipe, overrides or [], file, layout, read_site(site), limits, sweep or [])

    exit_after(debug, _launch, job, SCHEDULERS[on], dry_run)


def _launch(make: Callable[[], Job], scheduler: Any, dry_run: bool) -> None:
    job = make()
    print(job.layout, file=sys.stderr)
    if dry_run:
        print(scheduler.text(job), end="")
    else:
        print(scheduler.submit(job))


def status(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """Print how far a run is, wherever it runs. Example: peftune status outputs/summarize"""
    exit_after(debug, _status, run, as_json)


def _status(run: Path, as_json: bool) -> None:
    from peftune.status import read_status

    found = read_status(run, time.time())
    print(json.dumps(found.as_json(), indent=2) if as_json else found, end="\n")
