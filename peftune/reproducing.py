"""A run made again from its model card, and its results beside those that the card states."""

import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from peftune.compatibility import RUN_MARK, check_recipe
from peftune.engines.launch import Launch
from peftune.errors import RecipeError, ReproductionError
from peftune.export.adapter import WEIGHTS_FILE
from peftune.export.hub import HubTarget, fetch, parse_target
from peftune.fingerprints import file_sha256
from peftune.measurement import EVAL_RESULTS
from peftune.pipeline import run
from peftune.recipe import load_recipe
from peftune.records import read_json, write_json, write_text
from peftune.resolved import marked_yaml
from peftune.resuming import DATA_REPORT

CARD = "README.md"
REPORT = "reproduction.json"
FOLDED = re.compile(r"<details>.*?^(`{3,})yaml\n(.*?)^\1$.*?</details>", re.S | re.M)
DIGEST = re.compile(r"^\| (\w+) \|.*\| `(\w+)` \|$", re.M)
SAME = 1e-6
"""Relative difference up to which a result counts as the same."""


@dataclass(frozen=True)
class Stated:
    """What a model card says about its run."""

    recipe: dict[str, Any]
    results: Mapping[str, float]
    """Measures of the adapted model on the test split."""
    digests: Mapping[str, str]
    """Of the encoded rows of each split."""
    adapter_sha256: str | None
    """Of the adapter's file, where it is at hand."""


def read_card(folder: Path, name: str) -> Stated:
    """The card in a folder, whose adapter may be there too. Raises RecipeError for another card."""
    file = folder / CARD
    if not file.is_file():
        raise RecipeError(f"{name} has no {CARD}; give a run, or a model that peftune published.")
    text = file.read_text(encoding="utf-8")
    folded = FOLDED.search(text)
    if folded is None:
        raise RecipeError(f"{name}: its {CARD} holds no recipe; it is not of a run of peftune.")
    try:
        recipe, data = yaml.safe_load(folded[2]), ModelCard(text).data
        assert isinstance(data, ModelCardData)
        results = {one.metric_type: float(one.metric_value) for one in data.eval_results or []}
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{name}: its {CARD} cannot be read: {reason}.") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{name}: what its {CARD} folds in is no recipe.")
    adapter = folder / WEIGHTS_FILE
    return Stated(
        recipe=recipe,
        results=results,
        digests=dict(DIGEST.findall(text)),
        adapter_sha256=file_sha256(adapter) if adapter.is_file() else None,
    )


def stated(target: str) -> Stated:
    """What is known of a run by its folder or its model on the Hub. Raises RecipeError, HubError."""
    place = parse_target(target)
    if not isinstance(place, HubTarget):
        card = read_card(place, target)
        if not (place / RUN_MARK).is_file():
            return card
        # The run's own recipe still has the folders that the card does not tell.
        return replace(card, recipe=load_recipe(place / RUN_MARK).model_dump(mode="json"))
    with tempfile.TemporaryDirectory() as cache:
        return read_card(fetch(place.repo_id, place.revision, Path(cache), [CARD]), target)


def reproduce(target: str, out: Path, overrides: list[str], launch: Launch) -> None:
    """Run the recipe of a model card again into `out`, and compare.

    What the card cut, the folders of local data and models, comes as `overrides`. Writes
    `reproduction.json`. Raises RecipeError, and ReproductionError when a result is another, by more
    than rounding and outside its own interval.
    """
    known = stated(target)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "card.yaml"
        try:
            write_text(file, marked_yaml(known.recipe))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise RecipeError(
                f"{target}: the recipe of its card is not valid here: {key}: {first['msg']}."
            ) from error
        recipe = load_recipe(file, [f"output_dir={out}", *overrides])
        said = any(one.startswith("model.trust_remote_code=") for one in overrides)
        if recipe.model.trust_remote_code and not said:
            raise RecipeError(
                f"{target}: its recipe runs Python code of the model; read it, then add "
                "model.trust_remote_code=true to the command."
            )
        check_recipe(recipe, launch)
        run(recipe, launch)
    if launch.rank == 0:
        report(known, out)


def report(known: Stated, out: Path) -> None:
    """Compare, write, show; raise ReproductionError."""
    found = compared(known, out)
    write_json(out / REPORT, found)
    table = Table("", "card", "here", "", title="reproduction")
    for name, one in found["results"].items():
        table.add_row(name, f"{one['card']:.6g}", f"{one['here']:.6g}", one["verdict"])
    console = Console()
    console.print(table)
    for split, same in found["rows"].items():
        console.print(f"{split} rows: {'the same' if same else 'others than on the card'}")
    if found["adapter"] is not None:
        console.print(f"adapter: {'bit for bit the same' if found['adapter'] else 'other bits'}")
    other = [name for name, one in found["results"].items() if one["verdict"] == "differs"]
    if other:
        reason = "its rows are others" if not all(found["rows"].values()) else "see above"
        raise ReproductionError(f"{out} does not have the card's {', '.join(other)}: {reason}.")


def compared(known: Stated, out: Path) -> dict[str, Any]:
    """The content of reproduction.json."""
    adapted, rows = read_json(out / EVAL_RESULTS).get("adapted", {}), read_json(out / DATA_REPORT)
    adapter = known.adapter_sha256 and known.adapter_sha256 == file_sha256(out / WEIGHTS_FILE)
    return {
        "results": {
            # What was not measured here differs from any number.
            name: verdict(value, adapted.get(name, math.nan))
            for name, value in known.results.items()
        },
        "rows": {
            split: rows.get(split, {}).get("digest") == digest
            for split, digest in known.digests.items()
        },
        "adapter": adapter,
    }


def verdict(card: float, here: Any) -> dict[str, Any]:
    """Two values of a measure: the same, within the interval of the one measured here, or different."""
    value = here["value"] if isinstance(here, Mapping) else here
    if abs(value - card) <= SAME * max(abs(value), abs(card)):
        word = "same"
    elif isinstance(here, Mapping) and here["low"] <= card <= here["high"]:
        word = "within its interval"
    else:
        word = "differs"
    return {"card": card, "here": value, "verdict": word}
