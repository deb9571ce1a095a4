"""How long an all-reduce is measured before a link is called slow."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from peftune.preflight import link

SLOW = 0.2e6
ANY: Any = None


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[int]]]:
    """All-reduces that take as long as a function of size and count says; gives the sizes made."""

    def play(takes: Callable[[int, int], float]) -> list[int]:
        made: list[int] = []

        def one(ranks: Any, size: int) -> float:
            made.append(size)
            return takes(size, len(made))

        monkeypatch.setattr(link, "all_reduce_seconds", one)
        return made

    yield play


def test_a_quick_link_is_measured_with_more(seconds: Any) -> None:
    made = seconds(lambda size, count: 1e-3 + size / 1e9)
    assert link.all_reduce_bandwidth(ANY, SLOW) == pytest.approx(
        link.LARGE / (1e-3 + link.LARGE / 1e9)
    )
    assert made == [link.SMALL] * 3 + [link.LARGE] * 3


def test_a_machine_that_is_busy_for_a_moment_is_not_a_slow_link(seconds: Any) -> None:
    made = seconds(lambda size, count: 0.5 if count < 7 else 1e-3)
    assert link.all_reduce_bandwidth(ANY, SLOW) > SLOW
    assert made[:7] == [link.SMALL] * 7


def test_a_slow_link_is_given_up_in_time(seconds: Any) -> None:
    """64 kB at 1 Mbit/s; the whole of it stays far below twenty seconds."""
    made = seconds(lambda size, count: size / 125_000)
    assert link.all_reduce_bandwidth(ANY, SLOW) == pytest.approx(125_000)
    assert made == [link.SMALL] * 10
