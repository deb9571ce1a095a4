"""Runs on this machine: the tokens first, then `accelerate launch` (torch elastic)."""

import shlex
import subprocess
import sys
from pathlib import Path

from peftune.errors import LaunchError, PeftuneError
from peftune.schedulers.job import Job

RUN = Path(__file__).resolve().parent.parent / "run.py"


def text(job: Job) -> str:
    """The commands as a person would type them."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job.variables.items()]
    lines = [*job.site.setup, *exports, *map(shlex.join, commands(job))]
    return "\n".join(["set -e", *lines, ""])


def commands(job: Job) -> list[list[str]]:
    """What makes the tokens, and what trains. Raises LaunchError for what one machine cannot do."""
    if job.nodes > 1 or len(job.points) > 1:
        raise LaunchError(
            f"--on local: {job.nodes} node(s) and {len(job.points)} run(s) were asked for, and here is "
            "one machine for one run; leave out --nodes and --sweep."
        )
    (point,) = job.points
    python = [*job.site.container, job.site.python or sys.executable]
    layout = ["--config_file", str(job.launcher.path), "--num_processes", str(job.processes)]
    # Port 0 is any that is free.
    layout += ["--num_machines", "1", "--main_process_port", "0"]
    layout += ["--max_restarts", str(job.limits.restarts or 0)]
    accelerate = [*python, "-P", "-m", "accelerate.commands.launch", *layout]
    return [job.prepare_command(point), [*accelerate, str(RUN), str(job.recipe_path), *point]]


def submit(job: Job) -> str:
    """Run it here, to its end. Raises PeftuneError where it fails."""
    done = subprocess.run(["bash", "-c", text(job)])
    if done.returncode:
        raise PeftuneError(
            f"--on local: the run ended with {done.returncode}; the lines above say why."
        )
    return str(job.output_dir)
