"""Ranks prepare their rows at the same time, each for itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from peftune.data import encoded
from peftune.preparation import Prepared, prepare_data
from peftune.recipe import Recipe

RANKS = 6


def test_labels_are_counted_once(
    recipe_tree: dict[str, Any],
    models: dict[str, Path],
    labelled_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    counted, calls, together = encoded._counted, [], Barrier(RANKS)

    def noted(*given: Any) -> Any:
        calls.append(given)
        return counted(*given)

    monkeypatch.setattr(encoded, "_counted", noted)
    data = {"path": str(labelled_folder)}
    tree = {**recipe_tree, "task": "classify", "data": data, "evaluation": {}}
    tree["model"] = {**tree["model"], "model_name_or_path": str(models["bert"])}
    recipe = Recipe.model_validate(tree)

    def prepared(rank: int) -> Prepared:
        together.wait()
        return prepare_data(recipe)

    with ThreadPoolExecutor(RANKS) as ranks:
        found = [*ranks.map(prepared, range(RANKS))]
    assert len({one.head.labels for one in found}) == 1
    assert len(calls) == len({repr(table.fingerprint()) for table, _ in calls})
