"""What all verbs of the `peftune` command share: their arguments, and errors as one line each."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from peftune.errors import PeftuneError

RecipePath = Annotated[Path, typer.Argument(help="The recipe's YAML file.")]
RunFolder = Annotated[Path, typer.Argument(help="The output folder of a run.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value …")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def report_errors(debug: bool, command: Callable[..., None], *arguments: Any) -> int:
    """Run `command`; on a PeftuneError print its line on rank 0 and return its exit code."""
    try:
        command(*arguments)
    except PeftuneError as error:
        if debug:
            raise
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    return 0


def exit_after(debug: bool, command: Callable[..., None], *arguments: Any) -> None:
    """Run `command` and end the process with its exit code."""
    raise typer.Exit(report_errors(debug, command, *arguments))
