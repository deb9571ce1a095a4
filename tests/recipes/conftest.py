"""Toys of the models in `recipes/`, made at their first use."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.recipes.toy_models import TOYS


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model's toy, by the model's Hub id."""
    made: dict[str, Path] = {}

    def toy(model: str) -> Path:
        if model not in made:
            made[model] = tmp_path_factory.mktemp("toy")
            torch.manual_seed(0)
            TOYS[model].save(str(made[model]))
        return made[model]

    return toy


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals of toys say nothing."""
    monkeypatch.setattr("peftune.evaluation.metrics.RESAMPLES", 20)
