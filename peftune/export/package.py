"""The folder that is given away: what a loader needs, and nothing that tells about this machine."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import get_token

from peftune.errors import ExportError
from peftune.export.adapter import CONFIG_FILE, WEIGHTS_FILE
from peftune.export.card import without_folders
from peftune.records import write_json

COMPANIONS = (
    "tokenizer*",
    "vocab*",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "labels.json",
)
"""Files beside the weights that a loader reads."""
MERGED_FILES = (*COMPANIONS, "config.json", "*.safetensors", "*.safetensors.index.json", "*.py")
TEXTS = (".json", ".jsonl", ".md", ".jinja", ".txt", ".yaml", ".py")
SECRET_NAMES = ("TOKEN", "API_KEY", "SECRET", "PASSWORD")
SHORTEST_SECRET = 8


def copy_adapter(run: Path, folder: Path) -> None:
    """The adapter with its tokenizer. A base model that is a folder keeps its last part only."""
    copy_files(run, folder, (WEIGHTS_FILE, *COMPANIONS))
    config = json.loads((run / CONFIG_FILE).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = without_folders(config["base_model_name_or_path"])
    write_json(folder / CONFIG_FILE, config)


def copy_merged(merged: Path, folder: Path) -> None:
    """The merged model with its tokenizer."""
    copy_files(merged, folder, MERGED_FILES)


def copy_files(source: Path, folder: Path, patterns: Iterable[str]) -> None:
    for file in sorted({file for pattern in patterns for file in source.glob(pattern)}):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def refuse_leaks(folder: Path, places: Iterable[Path]) -> None:
    """Raise ExportError for a file that tells a folder of this machine, or a secret of the environment.

    `places` are folders that must not be told, beside the user's own and the present one.
    """
    told = {str(place) for place in (*places, Path.home(), Path.cwd()) if len(place.parts) > 2}
    for file in sorted(folder.rglob("*")):
        if file.suffix not in TEXTS:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        for place in told:
            if place in text:
                raise ExportError(
                    f"{file.name} names {place}, a folder of this machine; take it out of the recipe."
                )
        for name, secret in secrets().items():
            if secret in text:
                raise ExportError(f"{file.name} holds the secret of {name}; take it out.")


def secrets() -> dict[str, str]:
    """Secrets of this process by the name of what holds them."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name.endswith(SECRET_NAMES) and len(value) >= SHORTEST_SECRET
    }
    token = get_token()
    return found if token is None else {**found, "the Hub's login": token}
