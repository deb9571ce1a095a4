"""A training that moves from layout to layout is the training that one process would have done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.contract.cases import Case, Outcome, Tensors, run
from tests.contract.comparing import TOLERANCE, apart, largest
from tests.contract.groups import Group
from tests.contract.test_quantized import case_of

# Engine and ranks of each step, one after the other.
JOURNEY = (
    ("ddp", 1),
    ("zero2", 2),
    ("zero3", 2),
    ("ddp", 2),
    ("zero1", 2),
    ("fsdp2", 2),
    ("zero3", 2),
    ("fsdp2", 2),
    ("ddp", 1),
)


def computed(case: Case, group: Callable[[int], Group]) -> Outcome:
    """What rank 0 found."""
    return run(case) if case.world_size == 1 else group(case.world_size).run(case)[0]


@pytest.mark.parametrize(
    ("name", "method"),
    [("llama", "bnb-nf4"), pytest.param("t5", "none", marks=pytest.mark.thorough)],
)
def test_each_step_in_another_layout(
    name: str, method: str, folders: dict[str, Path], group: Callable[[int], Group]
) -> None:
    case = case_of(name, method, folders)
    layouts = [one for one in JOURNEY if (one[0], method) != ("fsdp2", "bnb-int8")]
    case = replace(case, train={**case.train, "max_steps": len(layouts)}, evaluates=False)
    undisturbed = run(case)
    losses: list[float] = []
    state: tuple[Tensors, Tensors] | None = None
    for finished, (engine, world_size) in enumerate(layouts):
        stage = replace(
            case,
            engine=engine,
            world_size=world_size,
            finished_steps=finished,
            state=state,
            last_step=finished + 1,
        )
        found = computed(stage, group)
        if state is not None:
            assert found.taken_over.keys() == state[1].keys()
            for key, value in found.taken_over.items():
                assert torch.equal(value, state[1][key]), (engine, key)
        losses += found.losses
        state = (found.adapter, found.moments)
    assert largest(list(zip(losses, undisturbed.losses, strict=True))) < TOLERANCE
    assert state is not None
    for moment in ("step", "exp_avg", "exp_avg_sq"):
        assert apart(named(state[1], moment), named(undisturbed.moments, moment)) < 1e-5


def named(state: Tensors, moment: str) -> Tensors:
    """One kind of piece of the optimizer's state."""
    return {key: value for key, value in state.items() if key.endswith(f":{moment}")}
