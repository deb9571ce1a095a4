"""The C library's allocator is set up where it is glibc's, and where nobody else has done it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from peftune.allocator import (
    give_back_freed_memory,
    keep_few_compiled_products,
    keep_freed_memory,
)


def test_it_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    expected = platform.libc_ver()[0] == "glibc"
    assert give_back_freed_memory() == expected
    assert keep_freed_memory() == expected


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_settings_of_the_user_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_compiled_products_are_bounded_unless_the_user_said_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    keep_few_compiled_products()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    keep_few_compiled_products()
    assert int(os.environ[name]) < 1024


AGAIN = """
import os, sys
from peftune.allocator import start_with_settings
print("started", os.getpid(), sys.argv[1:], sys.flags.utf8_mode, flush=True)
start_with_settings()
import torch
for size in (4 * 10**5, 4 * 10**6):
    places = set()
    for _ in range(8):
        block = torch.empty(size)
        places.add(block.data_ptr())
        del block
    print(len(places), max(places) % 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("settings", [{}, {"MALLOC_ARENA_MAX": "2"}])
def test_blocks_are_used_again(settings: dict[str, str], tmp_path: Path) -> None:
    ours = ("GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC_ENABLE")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    script = tmp_path / "again.py"
    script.write_text(AGAIN)
    command = [sys.executable, "-X", "utf8", str(script), "a b", "--c"]
    done = subprocess.run(
        command,
        env={**kept, **settings, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    *started, small, large = done.stdout.splitlines()
    # As the same process, with the same arguments; not at all where the user has chosen settings.
    assert len(started) == (1 if settings else 2) and len({*started}) == 1
    assert started[0].endswith("['a b', '--c'] 1")
    assert large.endswith(" 0"), "torch was loaded too early to put large blocks at whole pages"
    if not settings:
        assert small.startswith("1 ") and large.startswith("1 "), "a block left a gap"
