"""The C library's allocator is set up where it is glibc's, and where nobody else has done it."""

import platform

import pytest

from peftune.allocator import give_back_freed_memory, keep_freed_memory


def test_it_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    expected = platform.libc_ver()[0] == "glibc"
    assert give_back_freed_memory() == expected
    assert keep_freed_memory() == expected


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_settings_of_the_user_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
