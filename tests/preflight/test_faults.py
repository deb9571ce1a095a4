"""Faults that are planted into what ranks know: each is named with its node and the way out."""

from dataclasses import asdict
from typing import Any

import pytest

from peftune.errors import LaunchError
from peftune.preflight.checks import CHECKS, Node
from peftune.preflight.facts import Disk
from peftune.preflight.link import CHECKS as LINK_CHECKS
from peftune.preflight.perform import facts_from, found, judge
from tests.preflight.conftest import GOOD, links, spoilt

SLOW = 1e6


def problems(nodes: list[Node]) -> list[tuple[str, str]]:
    return list(found(nodes))


def test_a_healthy_cluster_has_no_problem(nodes: list[Node]) -> None:
    assert problems(nodes) == []
    assert [line for check in LINK_CHECKS.values() for line in check(links(3), SLOW)] == []


@pytest.mark.parametrize(
    ("facts", "check", "said"),
    [
        (
            {"versions": {"torch": "2.12.0", "peftune": "1.0 (abc)"}},
            "versions",
            "rank 3 on host1 has other packages than most: torch 2.12.0, not 2.13.0; install the same "
            "ones there.",
        ),
        (
            {"versions": {"torch": "2.13.0", "peftune": "1.0 (abd)"}},
            "versions",
            "rank 3 on host1 has other packages than most: peftune 1.0 (abd), not 1.0 (abc); install "
            "the same ones there.",
        ),
        (
            {"recipe": {"seed": "2", "train.learning_rate": "0.001"}},
            "recipe",
            "rank 3 on host1 has another recipe than most: seed 2, not 1; give all nodes the same file.",
        ),
        (
            {"weights_problem": "/models/a: no such folder.", "weights": ""},
            "weights",
            "rank 3 on host1 cannot load the base model: /models/a: no such folder.",
        ),
        (
            {"weights": "another"},
            "weights",
            "rank 3 on host1 sees other base weights than most (names, sizes or shapes differ); copy "
            "the model there again, or put it where all nodes see it.",
        ),
        (
            {"memory_free": 5_900_000_000},
            "memory",
            "host host1 (rank 2, 3) has 5.90 GB of memory free and the weights alone take 6.00 GB; "
            "start fewer processes there, free memory, or quantize the base.",
        ),
        (
            {"disks": (Disk("/out", 5_000_000, 20_000_000),)},
            "disk",
            "rank 3 on host1 has 5.00 MB free at /out and needs 20.00 MB; make room, or name another "
            "place (output_dir, PEFTUNE_CACHE).",
        ),
        (
            {"gpu_problem": "GPU 1 computes wrong products"},
            "gpu",
            "rank 3 on host1: GPU 1 computes wrong products; take the node out of the job, or free the "
            "GPU.",
        ),
    ],
)
def test_a_rank_that_differs_is_named(
    facts: dict[str, Any], check: str, said: str, nodes: list[Node]
) -> None:
    assert problems(spoilt(nodes, 3, **facts)) == [(check, said)]


def test_the_most_are_right_even_where_rank_0_is_not(nodes: list[Node]) -> None:
    (one,) = problems(spoilt(nodes, 0, recipe={"seed": "2", "train.learning_rate": "0.001"}))
    assert one[1].startswith("rank 0 on host0 has another recipe than most: seed 2, not 1")


def test_of_two_the_second_is_named(nodes: list[Node]) -> None:
    (one,) = problems(spoilt(nodes[:2], 1, weights="another"))
    assert one[1].startswith("rank 1 on host0 sees other base weights")


def test_many_differences_are_counted(nodes: list[Node]) -> None:
    many = {f"key{index}": "1" for index in range(9)} | GOOD.recipe
    (one,) = problems(spoilt(nodes, 3, recipe=many))
    assert one[1].count("not none") == 4 and "and 5 more" in one[1]


def test_memory_that_no_system_tells_is_not_judged(nodes: list[Node]) -> None:
    for rank in (2, 3):
        nodes = spoilt(nodes, rank, memory_free=None)
    assert problems(nodes) == []


def test_all_problems_are_told_at_once(nodes: list[Node]) -> None:
    both = spoilt(spoilt(nodes, 3, weights="another"), 1, gpu_problem="GPU 0 is gone")
    assert [name for name, _ in problems(both)] == ["weights", "gpu"]


@pytest.mark.parametrize(
    ("check", "more", "count", "said"),
    [
        (
            "clock",
            {"clock": 4600.0},
            2,
            "the clock of rank 1 on host1 is 3,600 s ahead of the others",
        ),
        (
            "clock",
            {"clock": -2600.0},
            3,
            "the clock of rank 1 on host1 is 3,600 s behind the others",
        ),
        (
            "data",
            {"stores": {"train": "others"}},
            3,
            "rank 1 on host1 has made other tokens than rank 0",
        ),
    ],
)
def test_what_lies_between_ranks(check: Any, more: dict[str, Any], count: int, said: str) -> None:
    (line,) = LINK_CHECKS[check](links(count, 1, **more), SLOW)
    assert line.startswith(said)


def test_the_slow_link_is_that_of_the_node_that_is_slow_alone() -> None:
    slow = [{"bandwidth": 5e5, "to_main": 0.0 if rank == 0 else 1e8} for rank in range(4)]
    made = [links(4, rank, **more)[rank] for rank, more in enumerate(slow)]
    made[2] = links(4, 2, bandwidth=5e5, to_main=4e5)[2]
    (line,) = LINK_CHECKS["link"](made, SLOW)
    assert line.startswith("an all-reduce moves 0.5 MB/s, and ranks.min_bandwidth is 1; ")
    assert (
        "the slow link is that of rank 2 on host2 (0.4 MB/s to rank 0). Look at its cable" in line
    )


def test_what_is_accepted_is_a_warning_of_rank_0(
    nodes: list[Node], capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = spoilt(spoilt(nodes, 3, weights="another"), 1, gpu_problem="GPU 0 is gone")
    with pytest.raises(LaunchError) as caught:
        judge(problems(spoiled), ["weights"], is_main=True)
    assert str(caught.value).startswith("preflight, gpu: rank 1 on host0: GPU 0 is gone; ")
    assert capsys.readouterr().err.startswith(
        "warning: preflight, weights, accepted: rank 3 on host1"
    )
    judge(problems(spoiled), ["weights", "gpu"], is_main=False)
    assert capsys.readouterr().err == ""


def test_every_check_has_a_name_that_can_be_accepted() -> None:
    from typing import get_args

    from peftune.engines.section import PreflightName

    assert {*CHECKS, *LINK_CHECKS} == {*get_args(PreflightName)}


def test_facts_survive_the_way_to_another_machine() -> None:
    import json

    assert facts_from(json.loads(json.dumps(asdict(GOOD)))) == GOOD
