"""Which keys of a recipe a run reads, recorded while it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from peftune.recipe import Recipe
from peftune.section import Section
from tests.conftest import REPOSITORY

CHECKS = ("unread", "resolved.py", "recipe.py", "compatibility.py")
"""Parts of the package that look at values without using them."""
VALIDATORS = ("check_roles", "_check_train_on", "_check_overlong")


@contextmanager
def recorded_reads(recipe: Recipe) -> Iterator[set[str]]:
    """Inside the block, the dotted keys that stages take out of the sections of such a recipe.

    Reads of checks, and what pydantic does by itself, do not count.
    """
    prefixes = {Recipe: ""}
    for name, value in recipe:
        if isinstance(value, Section):
            prefixes[type(value)] = f"{name}."
    reads: set[str] = set()

    def recording(section: Section, name: str) -> Any:
        kind = object.__getattribute__(section, "__class__")
        if name in kind.__pydantic_fields__ and _uses(sys._getframe(1)):
            reads.add(prefixes.get(kind, f"{kind.__name__}.") + name)
        return object.__getattribute__(section, name)

    Section.__getattribute__ = recording  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        del Section.__getattribute__


def _uses(frame: FrameType) -> bool:
    """Whether the reader belongs to a stage."""
    path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
    package = REPOSITORY / "peftune"
    if not path.is_relative_to(package):
        return False
    part = path.relative_to(package).parts[0]
    validates = path.name == "section.py" and name not in ("files", "sample_limit")
    return part not in CHECKS and not validates and name not in VALIDATORS
