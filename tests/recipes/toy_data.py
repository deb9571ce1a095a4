"""Toy rows in the columns that a recipe names."""

from pathlib import Path
from typing import Any

from peftune.data.roles import column_of
from peftune.data.template import parse_template
from peftune.recipe import Recipe
from peftune.tasks import TASKS
from tests.conftest import write_jsonl

COUNTS = {"train": 24, "validation": 4, "test": 4}
MOODS = ("good", "bad", "odd")


def write_splits(recipe: Recipe, folder: Path) -> Path:
    """Files for each split; no validation file where the recipe sets rows aside itself."""
    folder.mkdir()
    start = 0
    for split, count in COUNTS.items():
        if split != "validation" or recipe.data.validation_fraction is None:
            rows = [_row(recipe, number) for number in range(start, start + count)]
            write_jsonl(folder / f"{split}.jsonl", rows)
        start += count
    return folder


def _row(recipe: Recipe, number: int) -> dict[str, Any]:
    section, roles = recipe.data, TASKS[recipe.task].roles
    mood = MOODS[number % 3]
    template = section.prompt_template or TASKS[recipe.task].prompt_template or "{prompt}"
    read = [] if roles == ("text",) else [*parse_template(template).names]
    read += [role for role in section.columns if role != roles[-1]]
    row: dict[str, Any] = {
        column_of(section, name): f"Tom asks about the {name} of tent {number}: is it {mood}?"
        for name in read
    }
    return {**row, column_of(section, roles[-1]): _answer(recipe, number, mood)}


def _answer(recipe: Recipe, number: int, mood: str) -> Any:
    if recipe.task != "classify":
        return f"Day {number}: the tent is {mood}, and the ticket is not."
    return number % 3 + 0.5 if recipe.data.problem_type == "regression" else number % 3
