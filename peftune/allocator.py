"""Lets the C library keep what tensors on the CPU give back, instead of asking the system each time."""

import ctypes
import os
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2
_SETTINGS = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
"""Parameters of mallopt(3), in bytes."""


def keep_freed_memory() -> bool:
    """Set up glibc's allocator for this process; whether it was done.

    By default it maps large blocks on every allocation and unmaps them on every free, so a training
    spends its time in page faults. Other allocators, and settings of the user's own, are left alone.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or "LD_PRELOAD" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(key, value) == 1 for key, value in _SETTINGS.items())
