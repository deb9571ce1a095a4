"""A healthy cluster of three hosts with two ranks each, and ways to spoil it."""

from dataclasses import replace
from typing import Any

import pytest

from peftune.preflight.checks import Node
from peftune.preflight.facts import Disk, Facts
from peftune.preflight.link import Link

GOOD = Facts(
    versions={"torch": "2.13.0", "peftune": "1.0 (abc)"},
    recipe={"seed": "1", "train.learning_rate": "0.001"},
    weights="digest",
    weights_problem="",
    memory_free=8_000_000_000,
    memory_needed=3_000_000_000,
    disks=(Disk("/out", 9_000_000_000, 1_000_000_000),),
)
LINK = Link(0, "", 1000.0, 2e8, 0.0, {"train": "tokens"})


@pytest.fixture
def nodes() -> list[Node]:
    return [Node(rank, f"host{rank // 2}", GOOD) for rank in range(6)]


def spoilt(nodes: list[Node], rank: int, **facts: Any) -> list[Node]:
    """The same, with other facts of one rank."""
    return [
        one._replace(facts=replace(one.facts, **facts)) if one.rank == rank else one
        for one in nodes
    ]


def links(count: int, rank: int = 0, **more: Any) -> list[Link]:
    """All alike but for one rank."""
    made = [replace(LINK, rank=index, host=f"host{index}") for index in range(count)]
    made[rank] = replace(made[rank], **more)
    return made
