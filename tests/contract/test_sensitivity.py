"""Each promise broken on purpose: the contract must notice, by far more than its tolerance."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.contract.cases import Case, Outcome, run
from tests.contract.comparing import TOLERANCE, check, differences
from tests.contract.drawing import rows
from tests.contract.groups import Group
from tests.contract.oracle import oracle

BREAKS = (
    "divide_by_micro_batches",
    "drop_the_last_rows",
    "repeat_rows_for_even_batches",
    "count_padding",
    "learn_padding",
    "attend_to_padding",
    "draw_dropout_by_batch",
    "attend_across_rows",
)


@pytest.fixture(scope="module")
def case(folders: dict[str, Path]) -> Case:
    """Nine ragged rows in steps of six, two at a time, so that the second step is short."""
    ragged = (rows("causal", Random(5)) + rows("causal", Random(9)))[:9]
    assert len(ragged) == 9
    return Case(
        folder=str(folders["llama"]),
        objective="causal",
        rows=ragged,
        adapter={"method": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        train={
            "per_device_train_batch_size": 2,
            "global_batch_size": 6,
            "max_steps": 2,
            "learning_rate": 1.0e-2,
            "adam_epsilon": 1.0e-3,
            "max_grad_norm": 0.5,
        },
    )


@pytest.fixture(scope="module")
def exact(case: Case) -> Outcome:
    return oracle(case)


def padded(case: Case) -> Case:
    return replace(case, train={**case.train, "padding_free": False})


def on_two_ranks(case: Case) -> Case:
    return replace(case, world_size=2, train={**case.train, "per_device_train_batch_size": 1})


def worst(ours: Outcome, exact: Outcome) -> float:
    """The largest difference; other counts of targets are one by themselves."""
    if ours.targets != exact.targets:
        return 1.0
    return max(differences(ours, exact).values())


def test_the_case_keeps_the_contract(
    case: Case, exact: Outcome, group: Callable[[int], Group]
) -> None:
    check(differences(run(case), exact))
    check(differences(run(padded(case)), exact))
    for ours in group(2).run(on_two_ranks(case)):
        check(differences(ours, exact))


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_promise_is_noticed(broken: str, case: Case, exact: Outcome) -> None:
    assert worst(run(replace(case, broken=broken)), exact) > 1000 * TOLERANCE


def test_ranks_that_are_averaged_are_noticed(
    case: Case, exact: Outcome, group: Callable[[int], Group]
) -> None:
    broken = replace(on_two_ranks(case), broken="average_over_ranks")
    for ours in group(2).run(broken):
        # The counts are wrong by design; the gradients must be, too.
        ours.targets = exact.targets
        assert worst(ours, exact) > 1000 * TOLERANCE
