"""Names of labels that a data set keeps beside its numbers, as the `datasets` library writes them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from peftune.data.table import Row

Naming = Callable[[Row], Row]
METADATA_KEY = b"huggingface"


def naming(metadata: Mapping[bytes, bytes] | None) -> Naming:
    """What turns numbers into names, by the metadata of an Arrow schema."""
    text = (metadata or {}).get(METADATA_KEY)
    info = json.loads(text).get("info", {}) if text else {}
    return named_by(info.get("features") or {})


def named_by(features: Mapping[str, Any]) -> Naming:
    """What turns the numbers of each label column into names; lists of labels are lists of names.

    `features` are the library's own, as JSON. A number without a name (-1 where a test set hides
    its labels) becomes null.
    """
    names = {column: found for column, feature in features.items() if (found := _names(feature))}
    if not names:
        return _unchanged

    def name(row: Row) -> Row:
        return {**row, **{c: _named(row[c], known) for c, known in names.items() if c in row}}

    return name


def _unchanged(row: Row) -> Row:
    return row


def _names(feature: Any) -> tuple[str, ...]:
    if isinstance(feature, list):
        return _names(feature[0]) if feature else ()
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return tuple(feature.get("names") or ())
    return _names(feature.get("feature"))


def _named(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    is_id = isinstance(value, int) and not isinstance(value, bool)
    if not is_id:
        return value
    return names[value] if 0 <= value < len(names) else None
