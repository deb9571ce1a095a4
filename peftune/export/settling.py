"""A folder that is written beside its place gets its name when it is complete, or another one."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from peftune.errors import ParityError, StorageError
from peftune.records import storing


def aside_of(out: Path) -> Path:
    """Where a folder is written until it is complete. Raises StorageError where `out` is taken."""
    if out.exists():
        raise StorageError(f"{out} exists; remove it, or give another folder.")
    return out.with_name(f"{out.name}.partial")


def settle(
    aside: Path, out: Path, finish: Callable[[Path], None], unneeded: Iterable[str] = ()
) -> None:
    """`finish` sees the folder first and may add files; the `unneeded` ones go.

    When it raises a ParityError, the folder gets `.rejected` behind its name.
    """
    try:
        finish(aside)
    except ParityError as error:
        rejected = out.with_name(f"{out.name}.rejected")
        _name(aside, rejected, unneeded)
        raise ParityError(f"The merge is rejected, see {rejected}: {error}.") from error
    _name(aside, out, unneeded)


def _name(aside: Path, out: Path, unneeded: Iterable[str]) -> None:
    for name in unneeded:
        (aside / name).unlink(missing_ok=True)
    with storing(out, 0):
        if out.exists():
            shutil.rmtree(out)
        os.replace(aside, out)
