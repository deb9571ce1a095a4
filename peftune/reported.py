"""What was said about the data of a recipe, kept for the next time that nothing has changed.

Loading a tokenizer takes seconds, because transformers imports torch for it. Whether anything has
changed can be told from the files alone.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from peftune import __version__
from peftune.data.encoded import FORMAT, cache_folder, made_folder
from peftune.data.sources import open_splits
from peftune.data.table import digest
from peftune.environment import installed
from peftune.fingerprints import files_digest
from peftune.model.location import is_local, model_location
from peftune.recipe import Recipe
from peftune.records import read_json, write_json
from peftune.tasks import TASKS

LIBRARIES = ("transformers", "tokenizers", "pyarrow")


def report_file(recipe: Recipe) -> Path | None:
    """Where the report on a recipe's data is kept, under a name that says what it was made from.

    None for a model of the Hub, of which it takes the libraries to know which files it has.
    """
    if not is_local(recipe.model):
        return None
    task, template = TASKS[recipe.task], recipe.data.chat_template
    tables = open_splits(recipe.data, task.roles, task.prompt_template, recipe.seed)
    made_from = [
        [FORMAT, __version__, *map(installed, LIBRARIES)],
        recipe.model_dump(mode="json"),
        _model_files(Path(model_location(recipe.model))),
        files_digest([Path(template)]) if template and Path(template).is_file() else None,
        {split: table.fingerprint() for split, table in tables.items()},
    ]
    return cache_folder() / "reports" / f"{digest(made_from)}.json"


def _model_files(folder: Path) -> str:
    """Tokenizer, templates and configuration: everything but the weights."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return files_digest([path for path in files if path.suffix != ".safetensors"])


def read_report(file: Path | None) -> dict[str, Any] | None:
    """The report in `file`, if it is there and the tokens that it is about are as well."""
    kept = {} if file is None else read_json(file)
    stores = [cache_folder() / store / "manifest.json" for store in kept.get("stores", ())]
    if not stores or not all(manifest.is_file() for manifest in stores):
        return None
    return kept["report"]


def write_report(file: Path | None, report: dict[str, Any], stores: Iterable[str]) -> None:
    """Keep the report on the tokens in `stores`."""
    if file is not None:
        made_folder(file.parent)
        with FileLock(file.with_suffix(".lock")):
            write_json(file, {"stores": list(stores), "report": report})
