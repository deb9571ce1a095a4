"""Where the base model is, and whether what is there may be read."""

from functools import cache
from pathlib import Path
from typing import Any

from peftune.embedded import EMBEDDED_PREFIX, embedded_path
from peftune.errors import ModelError, UnsafeFileError
from peftune.model.section import ModelSection
from peftune.untrusted.files import check_files, check_name
from peftune.untrusted.json_file import read_object
from peftune.untrusted.model import (
    CONFIG,
    INDEX,
    LARGE_BYTES,
    ONE,
    check_configs,
    check_sizes,
    weight_headers,
)
from peftune.untrusted.tensor_header import Header

KEY = "model.model_name_or_path"
TEXTS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""What is fetched before anything is loaded: all but the weights."""
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def model_location(section: ModelSection) -> str:
    """Folder or Hub id that transformers loads from. Raises ModelError for an unknown place."""
    name = section.model_name_or_path
    if name.startswith(EMBEDDED_PREFIX):
        try:
            return str(embedded_path(name))
        except ValueError as error:
            raise ModelError(f"{KEY}: {error}.") from error
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if looks_local and not folder.is_dir():
        raise ModelError(f"{KEY}: {name!r}: no such folder.")
    return str(folder) if folder.is_dir() else name


def is_local(section: ModelSection) -> bool:
    """Whether the model is a folder of this machine. Raises ModelError for an unknown place."""
    return Path(model_location(section)).is_dir()


def check_model_files(section: ModelSection) -> None:
    """Refuse, before anything is loaded, a local model that could only be loaded unsafely."""
    folder = Path(model_location(section))
    if not folder.is_dir():
        return
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} has no config.json; copy the whole model there, or "
            "name another folder."
        )
    _check_weights(section, folder)
    config = _checked_config(section, folder)
    if not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} has no tokenizer; copy tokenizer.json and "
            "tokenizer_config.json of the model into the folder."
        )
    _headers(folder, config)


def checked_model(section: ModelSection, with_weights: bool) -> tuple[dict[str, Any], list[Header]]:
    """Configuration and headers of a model that may be read, of the Hub as well; without weights, none
    are fetched. Raises ModelError, and OSError where the Hub cannot be reached."""
    check_model_files(section)
    folder = Path(model_location(section))
    if not folder.is_dir():
        folder = _snapshot(str(folder), section.revision)
        if with_weights:
            _weight_paths(section)
    config = _checked_config(section, folder)
    return config, _headers(folder, config)


def weight_files(section: ModelSection) -> list[Path]:
    """The safetensors files of the base model, of a folder or of the Hub's cache. Raises ModelError."""
    names, found = _weight_paths(section)
    if None in found:
        raise ModelError(f"{KEY}: {section.model_name_or_path!r} lacks {names[found.index(None)]}.")
    return [file for file in found if file is not None]


def _weight_paths(section: ModelSection) -> tuple[list[str], list[Path | None]]:
    """Names of the weight files, as transformers looks for them, and where each is, if it is."""
    one = _file(section, ONE)
    index = _file(section, INDEX) if one is None else None
    if index is None:
        return [ONE], [one]
    places = read_object(index, LARGE_BYTES).get("weight_map")
    named = places.values() if isinstance(places, dict) else ()
    names = sorted({check_name(name, index, ".safetensors") for name in named})
    return names, [_file(section, name) for name in names]


def _file(section: ModelSection, name: str) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        model_location(section),
        name,
        revision=section.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Path(found)


@cache
def _snapshot(name: str, revision: str | None) -> Path:
    """The folder of the Hub's cache with a model's configuration and tokenizer; asked for once."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=[*TEXTS]))


def _checked_config(section: ModelSection, folder: Path) -> dict[str, Any]:
    """config.json of a folder whose files and other configurations are in order. Raises ModelError."""
    try:
        check_files(folder)
        config = read_object(folder / CONFIG)
        if not section.trust_remote_code and _needs_own_code(config):
            raise ModelError(
                f"{KEY}: {section.model_name_or_path!r} brings its own Python code; read it, then set "
                "model.trust_remote_code: true."
            )
        check_configs(folder)
    except UnsafeFileError as error:
        raise ModelError(f"{KEY}: {error}") from error
    return config


def _headers(folder: Path, config: dict[str, Any]) -> list[Header]:
    """Of the weights that are there, for which the configuration must be of a likely size."""
    try:
        headers = weight_headers(folder)
        check_sizes(folder / CONFIG, config, headers)
    except UnsafeFileError as error:
        raise ModelError(f"{KEY}: {error}") from error
    return headers


def _needs_own_code(config: dict[str, Any]) -> bool:
    """Whether only the repository's code can build the model: transformers' own class goes first."""
    if "auto_map" not in config:
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = config.get("model_type")
    return not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES


def _check_weights(section: ModelSection, folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt")))
    if pickles:
        raise ModelError(
            f"{KEY}: {section.model_name_or_path!r} holds pickle weights ({pickles[0]}), which can "
            "run code; convert them to safetensors."
        )
    raise ModelError(f"{KEY}: {section.model_name_or_path!r} has no .safetensors weights.")
