"""A row is as long as the model has positions, and no longer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from peftune.cli import report_errors, train_recipe
from peftune.model.positions import positions
from peftune.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.recipes.test_library import small

LIMITS = {
    "google-bert/bert-base-uncased": 514,
    "FacebookAI/roberta-base": 512,
    "FacebookAI/xlm-roberta-base": 512,
    "microsoft/deberta-v3-base": None,
    "google/flan-t5-base": None,
    "facebook/bart-base": 512,
    "Qwen/Qwen3-4B": 512,
    "google/gemma-3-4b-it": 512,
}
TABLES = ("google-bert/bert-base-uncased", "FacebookAI/roberta-base", "facebook/bart-base")


@pytest.mark.parametrize("model", LIMITS)
def test_the_limit_is_in_the_configuration(model: str, toys: Callable[[str], Path]) -> None:
    assert positions(AutoConfig.from_pretrained(toys(model))) == LIMITS[model]


@pytest.mark.parametrize("model", TABLES)
def test_a_table_of_positions_ends_at_the_limit(model: str, toys: Callable[[str], Path]) -> None:
    frozen, limit = AutoModel.from_pretrained(toys(model)), LIMITS[model]
    assert limit is not None
    with torch.no_grad():
        frozen(torch.full((1, limit), 9))
        with pytest.raises((IndexError, RuntimeError)):
            frozen(torch.full((1, limit + 1), 9))


def test_longer_rows_are_refused_before_training(
    toys: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The usual default of 1,024 tokens is more than such an encoder can read."""
    path = REPOSITORY / "recipes" / "encoder" / "roberta-base-paraphrase.yaml"
    shipped = load_recipe(path)
    overrides = small(shipped, toys("FacebookAI/roberta-base"), tmp_path)
    train = tmp_path / "data" / "train.jsonl"
    train.write_text(train.read_text().replace("tent 3:", "tent 3" + " red" * 600 + ":"))
    overrides.append("data.max_length=1024")
    assert report_errors(False, train_recipe, str(path), overrides) == 2
    message = capsys.readouterr().err
    assert "error: data.max_length: 1024 lets train rows of " in message
    assert "has 512 positions; set data.max_length: 512 and data.overlong." in message
