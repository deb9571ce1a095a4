"""The C library's allocator is set up where it is glibc's, and where nobody else has done it."""

import os
import platform

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
