"""Every key of the recipes on embedded models counts; and what does not count is found."""

from dataclasses import replace
from pathlib import Path

import pytest

from peftune.cli import report_errors, train_recipe
from peftune.recipe import load_recipe
from peftune.tasks import TASKS
from tests.conftest import REPOSITORY
from tests.reading import recorded_reads
from tests.recipes import mutation
from tests.recipes.mutation import HANDED_ON, unchanging_keys
from tests.recipes.toy_data import write_splits

EMBEDDED = sorted((REPOSITORY / "recipes").glob("*.yaml"))
SUMMARIZE = REPOSITORY / "recipes" / "summarize.yaml"


def placed(path: Path, folder: Path) -> list[str]:
    """The recipe on toy rows; its model is small enough."""
    data = write_splits(load_recipe(path), folder / "data")
    return [f"data.path={data}", f"output_dir={folder / 'run'}"]


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem)
def test_every_key_of_an_embedded_recipe_counts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    overrides, recipe = placed(path, tmp_path), load_recipe(path)
    short = ["train.max_steps=1", "train.num_train_epochs=null"]
    if TASKS[recipe.task].metrics:
        short.append("evaluation.max_new_tokens=2")
    with recorded_reads(recipe) as reads:
        assert report_errors(True, train_recipe, str(path), [*overrides, *short]) == 0
    overrides[-1] = f"output_dir={tmp_path / 'other'}"
    assert unchanging_keys(path, overrides, reads) == []


def unread_of(folder: Path, reads: set[str]) -> list[str]:
    """The keys of the summarizing recipe that seem not to count."""
    mutation.outcome.cache_clear()
    return unchanging_keys(SUMMARIZE, placed(SUMMARIZE, folder), reads)


def test_a_key_that_no_stage_gets_is_found(tmp_path: Path) -> None:
    own = {"output_dir", "model.dtype", "train.eval_steps", "evaluation.max_new_tokens"}
    assert set(unread_of(tmp_path, set())) == own < HANDED_ON


def test_a_key_that_changes_nothing_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the plan had forgotten the warmup."""
    planned = mutation.plan_for
    monkeypatch.setattr(
        mutation, "plan_for", lambda *arguments: replace(planned(*arguments), warmup_steps=0)
    )
    assert unread_of(tmp_path, HANDED_ON) == ["train.warmup_ratio"]
