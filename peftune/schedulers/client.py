"""The schedulers' own commands."""

import subprocess
from collections.abc import Sequence

from peftune.errors import LaunchError


def client_says(command: Sequence[str], given: str | None = None) -> str:
    """What a scheduler's command prints, with `given` on its input. Raises LaunchError."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LaunchError(
            f"--on: no {command[0]} on this machine; launch where it is, or print with --dry-run."
        ) from error
    if done.returncode:
        raise LaunchError(f"--on: {command[0]} says: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
