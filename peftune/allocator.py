"""What the libraries below torch do with memory on the CPU: what tensors give back, and compiled code."""

import ctypes
import os
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2
_SETTINGS = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
_GIVING_BACK = {_MMAP_THRESHOLD: 2**22}
"""Parameters of mallopt(3), in bytes."""
_PRODUCTS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "24"
"""oneDNN compiles code for every new shape of a product in bfloat16 and keeps 1,024 of them. Every step
has a number of tokens of its own, so those of a few steps ago are never used again."""


def keep_freed_memory() -> bool:
    """Set up glibc's allocator for this process; whether it was done.

    By default it maps large blocks on every allocation and unmaps them on every free, so a training
    spends its time in page faults. Other allocators, and settings of the user's own, are left alone.
    """
    return _set(_SETTINGS)


def keep_few_compiled_products() -> None:
    """Bound the code that oneDNN keeps, before its first product; a number of the user's own stands."""
    os.environ.setdefault(*_PRODUCTS)


def give_back_freed_memory() -> bool:
    """The opposite, for work that is done tensor by tensor: what is freed is the system's at once.

    Of itself glibc keeps blocks of up to 32 MB once some have been freed, in a heap for each thread.
    """
    return _set(_GIVING_BACK)


def _set(settings: dict[int, int]) -> bool:
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or "LD_PRELOAD" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(key, value) == 1 for key, value in settings.items())
