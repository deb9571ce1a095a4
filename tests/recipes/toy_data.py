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
    mood = MOODS[number % 3]
    match recipe.task:
        case "chat":
            values: dict[str, Any] = {"messages": conversation(number, mood)}
        case "tag":
            tags = [0, 0, 1, 2, 0] if recipe.data.labels else ["O", "O", "B-X", "I-X", "O"]
            values = {"words": ["Is", "it", mood, f"{number}", "?"], "tags": tags}
        case "extract":
            values = _question(number, mood)
        case _:
            return _prompt_row(recipe, number, mood)
    return {column_of(recipe.data, role): value for role, value in values.items()}


def conversation(number: int, mood: str) -> list[dict[str, str]]:
    """Two questions and answers."""
    texts = (
        f"Is tent {number} {mood}?",
        f"It is {mood}.",
        "And the ticket?",
        f"Day {number}: it is not {mood}.",
    )
    roles = ("user", "assistant") * 2
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _question(number: int, mood: str) -> dict[str, Any]:
    """Every third question has no answer, as in SQuAD 2."""
    context = f"Tom asks about tent {number}, and it is {mood}."
    answers = {"text": [mood], "answer_start": [context.rindex(mood)]}
    nothing: dict[str, list[Any]] = {"text": [], "answer_start": []}
    asked = {"context": context, "question": f"How is tent {number}?"}
    return {**asked, "answers": answers if number % 3 else nothing}


def _prompt_row(recipe: Recipe, number: int, mood: str) -> dict[str, Any]:
    section, roles = recipe.data, TASKS[recipe.task].roles
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
