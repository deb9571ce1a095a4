"""Quantized training is LoRA on the weights that the bits stand for, in every engine that may run it.

A validation stands after every step: libraries change the layers behind a run's back when a model
enters eval mode. The reference is the dequantized model, trained as plain numbers in float64. `pytest
-s` shows how far each was apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.contract.cases import Case, Outcome, run
from tests.contract.comparing import TOLERANCE, differences
from tests.contract.drawing import row
from tests.contract.groups import Group
from tests.contract.models import LEARNT
from tests.contract.oracle import oracle, targets

# Each cell of the matrix is computed by test_cells.py; here it is compared with float64.
LAYOUTS = [("ddp", 1), ("ddp", 2), ("zero1", 2), ("zero2", 2), ("zero3", 2), ("fsdp2", 2)]
METHODS = ("none", "bnb-nf4", "bnb-fp4", "bnb-int8")
QUICK = {
    *((name, "bnb-nf4", "ddp", 1) for name in ("llama", "bert", "t5")),
    *(("llama", method, "ddp", 1) for method in METHODS),
    *(("llama", method, "zero3", 2) for method in METHODS),
    ("t5", "bnb-nf4", "zero3", 2),
}
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.thorough)
    for layout in LAYOUTS
    for name in ("llama", "bert", "t5")
    for method in METHODS
    for case in [(name, method, *layout)]
]
Exact = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def shown() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines), end="")


@pytest.fixture(scope="module")
def exact() -> Exact:
    """What the oracle found, for each model and method."""
    return {}


def case_of(name: str, method: str, folders: dict[str, Path]) -> Case:
    quantization = None if method == "none" else {"method": method}
    objective, random = LEARNT[name][0], Random(1)
    drawn = [row(objective, index, random) for index in range(30)]
    return Case(
        folder=str(folders[name]),
        objective=objective,
        rows=tuple(one for one in drawn if targets(one))[:9],
        adapter={"method": "lora", "r": 4, "lora_alpha": 8},
        quantization=quantization,
        evaluates=True,
        train={
            "per_device_train_batch_size": 2,
            "global_batch_size": 4,
            "max_steps": 3,
            "learning_rate": 1.0e-2,
            "adam_epsilon": 1.0e-3,
            "max_grad_norm": 0.5,
        },
    )


@pytest.mark.parametrize(("name", "method", "engine", "world_size"), CASES)
def test_quantized_training_is_training_on_the_dequantized_weights(
    name: str,
    method: str,
    engine: str,
    world_size: int,
    folders: dict[str, Path],
    group: Callable[[int], Group],
    exact: Exact,
    shown: list[str],
) -> None:
    if method == "bnb-int8" and engine == "fsdp2":
        pytest.skip("refused: FSDP2 cannot shard bnb-int8")
    case = case_of(name, method, folders)
    if (name, method) not in exact:
        exact[name, method] = oracle(replace(case, dequantized=method != "none"))
    laid_out = replace(case, engine=engine, world_size=world_size)
    outcomes = [run(laid_out)] if world_size == 1 else group(world_size).run(laid_out)
    of_ranks = [differences(ours, exact[name, method]) for ours in outcomes]
    found = {key: max(one[key] for one in of_ranks) for key in of_ranks[0]}
    numbers = ", ".join(f"{key} {value:.1e}" for key, value in found.items())
    shown.append(f"{name} {method} {engine} x {world_size}: {numbers}")
    assert max(found.values()) < TOLERANCE, found
