"""What the libraries below torch do with memory on the CPU: what tensors give back, and compiled code."""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping

_NUMBERS = {"trim_threshold": -1, "top_pad": -2, "mmap_threshold": -3}
"""Parameters of mallopt(3) by the names of glibc's tunables."""
_KEEPING = {"mmap_threshold": 2**30, "trim_threshold": 2**31 - 1, "top_pad": 2**26}
_GIVING_BACK = {"mmap_threshold": 2**22}
"""In bytes."""
_WITHOUT_SMALL_LISTS = {"tcache_count": 0, "mxfast": 0}
_TUNABLES = "GLIBC_TUNABLES"
_AT_START = ":".join(
    f"glibc.malloc.{name}={value}" for name, value in {**_KEEPING, **_WITHOUT_SMALL_LISTS}.items()
)
_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""With it torch puts blocks from 2 MB on at whole pages and asks Linux for large ones."""
_PRODUCTS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "96"
"""oneDNN compiles code for every new shape of a product in bfloat16, a third of a megabyte, and keeps
1,024 of them; as many as this are the shapes of a model whose rows are of a few common numbers."""


def start_with_settings() -> None:
    """Set up glibc's allocator for a training on a CPU, before torch is loaded; the process starts its
    program again where that has to be.

    Each block that torch aligns leaves some bytes over. While glibc keeps those on lists for small
    requests, which it can be told not to do only as a process starts, they do not join the block again
    when it is freed, and it is too small for the next one of its size.
    """
    if _LARGE_PAGES in os.environ:
        # It has started again, also where a privileged program has lost the tunables on the way.
        return
    os.environ[_LARGE_PAGES] = "1"
    if _may_set():
        os.environ[_TUNABLES] = _AT_START
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_freed_memory() -> bool:
    """Set up glibc's allocator for this process as it runs; whether it was done.

    By default it maps large blocks on every allocation and unmaps them on every free, so a training
    spends its time in page faults. Other allocators, and settings of the user's own, are left alone.
    """
    return _set(_KEEPING)


def keep_few_compiled_products() -> None:
    """Bound the code that oneDNN keeps, before its first product; a number of the user's own stands."""
    os.environ.setdefault(*_PRODUCTS)


def give_back_freed_memory() -> bool:
    """The opposite, for work that is done tensor by tensor: what is freed is the system's at once.

    Of itself glibc keeps blocks of up to 32 MB once some have been freed, in a heap for each thread.
    """
    return _set(_GIVING_BACK)


def _set(settings: Mapping[str, int]) -> bool:
    if not _may_set():
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(_NUMBERS[name], value) == 1 for name, value in settings.items())


def _may_set() -> bool:
    """Whether the allocator is glibc's, and nobody else has set it up."""
    own = any(name.startswith("MALLOC_") or name == "LD_PRELOAD" for name in os.environ)
    tuned = os.environ.get(_TUNABLES, _AT_START) != _AT_START
    return not own and not tuned and platform.libc_ver()[0] == "glibc"
