"""The table of recipes/README.md, made from the recipes themselves.

`python -m tests.keys_table` writes it anew.
"""

import re
from pathlib import Path

from peftune.recipe import Recipe, load_recipe

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = REPOSITORY / "recipes"
LIBRARY = FOLDER / "README.md"
BEGIN, END = "<!-- recipes: begin -->\n", "<!-- recipes: end -->"
RECIPES = sorted(FOLDER.glob("*/*.yaml"))
HARDWARE = re.compile(r"(one|eight) \d+ GB GPUs?")
LAUNCHER = re.compile(r"accelerate_configs/(\w+\.yaml)")


def recipe_table() -> str:
    """Markdown: one row for each recipe."""
    columns = ("Recipe", "Model", "Task", "Data", "Adapter", "Hardware", "Launcher")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_cells(path))} |" for path in RECIPES]
    return "\n".join(lines) + "\n"


def _cells(path: Path) -> list[str]:
    """Raises AssertionError for a file whose comments do not name hardware and launcher."""
    recipe, text = load_recipe(path), path.read_text(encoding="utf-8")
    hardware, launcher = HARDWARE.search(text), LAUNCHER.search(text)
    assert hardware, f"{path.name}: name the hardware, e.g. one 24 GB GPU"
    assert launcher, f"{path.name}: the second line is the command"
    name = str(path.relative_to(FOLDER))
    data = " ".join(filter(None, (recipe.data.path, recipe.data.name)))
    return [
        f"[{path.stem}]({name})",
        f"`{recipe.model.model_name_or_path}`",
        f"`{recipe.task}`",
        f"`{data}`",
        _adapter(recipe),
        hardware.group(),
        f"`{launcher.group(1)}`",
    ]


def _adapter(recipe: Recipe) -> str:
    adapter = recipe.adapter.model_dump()
    marks = [adapter["method"], f"r={adapter['r']}"]
    marks += ["rsLoRA"] if adapter["use_rslora"] else []
    marks += ["LoRA+"] if adapter["loraplus_lr_ratio"] else []
    marks += [recipe.quantization.method] if recipe.quantization else []
    return " ".join(marks)
