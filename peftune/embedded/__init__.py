"""Data and tiny pretrained models shipped inside the package, for runs without a network."""

from pathlib import Path

EMBEDDED_PREFIX = "embedded:"
_FOLDER = Path(__file__).resolve().parent


def embedded_names() -> list[str]:
    """The names that may follow ``embedded:``, one for each folder of this package."""
    return sorted(
        entry.name
        for entry in _FOLDER.iterdir()
        if entry.is_dir() and not entry.name.startswith(("_", "."))
    )


def embedded_path(reference: str) -> Path:
    """The folder that a reference such as ``embedded:decoder`` stands for."""
    name = reference.removeprefix(EMBEDDED_PREFIX)
    if not reference.startswith(EMBEDDED_PREFIX) or name not in embedded_names():
        known = ", ".join(f"{EMBEDDED_PREFIX}{known_name}" for known_name in embedded_names())
        raise ValueError(f"unknown embedded reference {reference!r}; there are: {known}")
    return _FOLDER / name
