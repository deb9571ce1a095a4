"""Every shortcut keeps the contract, for each architecture in `recipes/`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from peftune.model.unpadding import is_unpadded
from peftune.objectives import ObjectiveName
from peftune.training.section import Recomputation
from tests.contract.cases import Case, adapted_model, run
from tests.contract.comparing import TOLERANCE, check, differences
from tests.contract.drawing import rows
from tests.contract.oracle import oracle
from tests.recipes.toy_models import TOYS

Toys = Callable[[str], Path]
ROUNDING = 1.5
"""How much more than plain code a shortcut may round, where that rounds more than the contract allows."""
PADDED = {"microsoft/deberta-v3-base"}
"""Whose attention is code of its own."""
CENTRED = PADDED | {
    "facebook/bart-base",
    "facebook/nllb-200-distilled-600M",
    "google-bert/bert-base-uncased",
    "FacebookAI/roberta-base",
    "FacebookAI/xlm-roberta-base",
    "answerdotai/ModernBERT-base",
}
"""Whose norms take the mean away first."""


def objective_of(model: str) -> ObjectiveName:
    name, config = TOYS[model].model, TOYS[model].config
    if name.endswith("MaskedLM"):
        return "masked"
    return "seq2seq" if name.endswith("Generation") and "text_config" not in config else "causal"


def case_of(model: str, folder: Path, **train: Any) -> Case:
    """Rows of up to 40 tokens, which is more than the windows of toys."""
    objective = objective_of(model)
    drawn = [*rows(objective, Random(5)), *rows(objective, Random(9))]
    learnt = [row for row in drawn if any(label != -100 for label in row.labels)]
    assert max(len(row.input_ids) for row in learnt) > 16
    return Case(
        folder=str(folder),
        objective=objective,
        rows=tuple(learnt[:9]),
        adapter={"method": "lora", "r": 4, "lora_alpha": 8},
        attention="eager" if model in PADDED else "sdpa",
        train={
            "per_device_train_batch_size": 3,
            "global_batch_size": 9,
            "max_steps": 2,
            "learning_rate": 1.0e-2,
            "adam_epsilon": 1.0e-3,
            **train,
        },
    )


def slow(case: Case) -> Case:
    return replace(case, shortcuts=False, train={**case.train, "padding_free": False})


def check_against_oracle(case: Case, model: str) -> None:
    """Every number is the exact one; where the code of transformers and peft rounds as much in float32
    there is nothing to gain."""
    expected = oracle(case)
    found = differences(run(case), expected)
    if max(found.values()) >= TOLERANCE:
        plain = differences(run(slow(case)), expected)
        found = {name: one for name, one in found.items() if not one <= ROUNDING * plain[name]}
    check(found, model)


@pytest.mark.parametrize("model", TOYS)
def test_shortcuts_change_no_number(model: str, toys: Toys) -> None:
    case = case_of(model, toys(model))
    if "num_experts" in TOYS[model].config:
        # Kernels of experts have no float64.
        check(differences(run(case), run(slow(case))), model)
    else:
        check_against_oracle(case, model)


@pytest.mark.parametrize("model", TOYS)
def test_padding_is_left_out_wherever_the_code_allows_it(model: str, toys: Toys) -> None:
    adapted = adapted_model(case_of(model, toys(model)))
    assert is_unpadded(adapted.get_base_model()) == (model not in PADDED)


@pytest.mark.parametrize("model", TOYS)
def test_every_norm_of_root_mean_squares_is_one_function(model: str, toys: Toys) -> None:
    modules = [*adapted_model(case_of(model, toys(model))).modules()]
    norms = [one for one in modules if type(one).__name__.endswith(("RMSNorm", "T5LayerNorm"))]
    assert bool(norms) == (model not in CENTRED)
    assert all("forward" in vars(norm) for norm in norms)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-4B", "google/gemma-3-1b-pt", "google/mt5-base"])
@pytest.mark.parametrize("kept", [True, "selective"])
def test_recomputed_layers_are_unpadded_too(model: str, kept: Recomputation, toys: Toys) -> None:
    case = case_of(model, toys(model), gradient_checkpointing=kept, label_smoothing_factor=0.1)
    check_against_oracle(case, model)
