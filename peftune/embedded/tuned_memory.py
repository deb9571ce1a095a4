"""Starts a pretraining script again with settings that torch needs before it is imported."""

import os
import sys

# glibc gives large blocks back to the system on every free; keeping them trains faster.
_TUNING = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def restart_tuned() -> None:
    """Replace this process by the same script with its memory tuned, unless it already is."""
    if not _TUNING.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_TUNING})
