"""JSON of unknown origin: bounded in size and depth, and without a key that is there twice."""

import json
from pathlib import Path
from typing import Any

from peftune.errors import UnsafeFileError

CONFIG_BYTES = 16 * 2**20
"""A configuration with ten thousand names has less than one of these 16 MiB."""
DEPTH = 64
"""Levels of a configuration; the deepest that are known have ten."""
LENGTH = 160
"""Characters of a name that are shown."""


def read_object(path: Path, limit: int = CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in a file. Raises UnsafeFileError for anything else, and where it is too large."""
    check_bytes(path, limit)
    value = parsed(path.read_bytes(), str(path))
    if not isinstance(value, dict):
        raise UnsafeFileError(f"{path} is not a JSON object.")
    _check_depth(value, path)
    return value


def check_bytes(path: Path, limit: int) -> None:
    """Raise UnsafeFileError for a file that is too large to be read whole."""
    size = path.stat().st_size
    if size > limit:
        raise UnsafeFileError(
            f"{path} has {size:,} bytes, and such a file has {limit:,} at most; it is none, or was made "
            "to fill the memory."
        )


def parsed(text: bytes, place: str) -> Any:
    """The value of a JSON text. Raises UnsafeFileError, which names the text's `place`."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise UnsafeFileError(f"{place} is nested too deeply for JSON of its kind.") from error
    except ValueError as error:
        raise UnsafeFileError(f"{place} is not JSON text: {error}.") from error


def shown(name: Any) -> str:
    """A name from a file on one line, without anything that a terminal would obey."""
    text = repr(name)
    return text if len(text) <= LENGTH else f"{text[:LENGTH]}…"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers could each see another one of two values."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return made


def _check_depth(value: Any, path: Path) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise UnsafeFileError(f"{path} is nested more than {DEPTH} levels deep.")
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, (dict, list))]
