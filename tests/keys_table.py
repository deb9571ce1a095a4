"""The README's tables of recipe keys, of tasks and of what works together, made from the code.

`python -m tests.keys_table` writes them, recipes/recipe.schema.json and the table of
recipes/README.md anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from peftune.matrix import overview
from peftune.objectives import MODEL_CLASSES
from peftune.recipe import json_schema
from peftune.tasks import TASKS
from tests.recipes.recipe_table import BEGIN as BEGIN_RECIPES
from tests.recipes.recipe_table import END as END_RECIPES
from tests.recipes.recipe_table import LIBRARY, recipe_table

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
SCHEMA_FILE = REPOSITORY / "recipes" / "recipe.schema.json"
BEGIN, END = "<!-- recipe keys: begin -->\n", "<!-- recipe keys: end -->"
BEGIN_TASKS, END_TASKS = "<!-- tasks: begin -->\n", "<!-- tasks: end -->"
BEGIN_MATRIX, END_MATRIX = "<!-- matrix: begin -->\n", "<!-- matrix: end -->"
MEASURES = {
    "rouge": "ROUGE-1, -2 and -L",
    "translation": "sacreBLEU, chrF++",
    "short_answers": "exact match of short answers",
    "answers": "exact match and F1 as SQuAD; the last number of worked answers",
}
LEARNT_MEASURES = {
    "label": "accuracy, F1, Matthews, confusion matrix; AUROC; Pearson, Spearman",
    "tags": "precision, recall and F1 of entities (seqeval), F1 of each type, accuracy of words",
    "answers": "exact match and F1 as SQuAD, also apart for answered and unanswerable questions",
}
NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
    "boolean": "`true` or `false`",
}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = dict[str, Any]


def keys_table() -> str:
    """Markdown: one row for each key, sections in the recipe's order."""
    recipe = json_schema()
    lines = ["| Key | Values | Default | Meaning |", "|---|---|---|---|"]
    for name, field in recipe["properties"].items():
        variants = [recipe["$defs"][reference] for reference in _references(field)]
        if variants:
            lines += _section_rows(name, variants, optional=name not in recipe["required"])
            lines += _list_rows(name, variants, recipe["$defs"])
        else:
            lines.append(_row(name, field, name in recipe["required"], ""))
    return "\n".join(lines) + "\n"


def tasks_table() -> str:
    """Markdown: which class of model can do which task, and how it is judged."""
    lines = [f"| Task | {' | '.join(MODEL_CLASSES)} | Test split |", "|---|---|---|---|---|"]
    for task in TASKS.values():
        able = ["yes" if kind in task.objectives else "no" for kind in MODEL_CLASSES]
        measures = [MEASURES[name] for name in task.metrics]
        if task.roles[-1] in LEARNT_MEASURES:
            measures = [LEARNT_MEASURES[task.roles[-1]]]
        judged = "; ".join(measures) or "loss, perplexity; bits per byte of decoders"
        lines.append(f"| `{task.name}` | {' | '.join(able)} | {judged} |")
    return "\n".join(lines) + "\n"


def _references(field: Schema) -> Iterator[str]:
    """Names of the sections that `field` can hold; several where `method` chooses."""
    if "$ref" in field:
        yield field["$ref"].removeprefix("#/$defs/")
    for choice in field.get("anyOf", []) + field.get("oneOf", []):
        yield from _references(choice)


def _section_rows(name: str, variants: list[Schema], optional: bool) -> list[str]:
    """`method` first; a key of some methods only says of which."""
    rows: dict[str, list[str]] = {}
    for variant in variants:
        for key, field in variant["properties"].items():
            required = key in variant.get("required", ())
            # A `method` of one value is explained by its section.
            described = {**field, "description": variant["description"]}
            row = _row(f"{name}.{key}", described if "const" in field else field, required, "{of}")
            rows.setdefault(row, []).extend(_methods(variant))
    everywhere = [method for variant in variants for method in _methods(variant)]
    marked = [
        row.replace("{of} ", "" if of == everywhere or ".method`" in row else f"({', '.join(of)}) ")
        for row, of in rows.items()
    ]
    marked.sort(key=lambda row: ".method`" not in row)
    return [
        f"| **`{name}:`** | section | {'may be left out' if optional else 'required'} | |",
        *marked,
    ]


def _list_rows(name: str, variants: list[Schema], definitions: Schema) -> Iterator[str]:
    """The keys of sections that stand in a list, as `mixture` holds sources."""
    for variant in variants:
        for key, field in variant["properties"].items():
            for reference in _references(field.get("items", {})):
                section = definitions[reference]
                for inner, inner_field in section["properties"].items():
                    required = inner in section.get("required", ())
                    yield _row(f"{name}.{key}[].{inner}", inner_field, required, "")


def _methods(variant: Schema) -> list[str]:
    method = variant["properties"].get("method", {})
    return [*method.get("enum", []), *([method["const"]] if "const" in method else [])]


def _row(key: str, field: Schema, required: bool, mark: str) -> str:
    meaning = " ".join(f"{mark} {field['description']}".split()).replace("|", "\\|")
    default = "required" if required else _default(field.get("default"))
    return f"| `{key}` | {_values(field)} | {default} | {meaning} |"


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{yaml.safe_dump(value).splitlines()[0]}`"


def _values(field: Schema) -> str:
    if "anyOf" in field:
        choices = [_values(choice) for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(choices)
    if "$ref" in field:
        return "sections"
    if "const" in field or "enum" in field:
        allowed = field.get("enum", [field.get("const")])
        return ", ".join(_default(value) for value in allowed)
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    limits = [
        f"{sign} {field[limit]:{',' if isinstance(field[limit], int) else 'g'}}"
        for limit, sign in LIMITS.items()
        if limit in field
    ]
    return " ".join([NAMES[field["type"]], ", ".join(limits)]).strip()


def schema_text() -> str:
    """The content of recipes/recipe.schema.json, as `peftune schema` prints it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _replaced(text: str, begin: str, end: str, table: str) -> str:
    before, _, rest = text.partition(begin)
    return before + begin + table + end + rest.partition(end)[2]


def main() -> None:
    """Bring the generated texts up to date."""
    text = _replaced(README.read_text(encoding="utf-8"), BEGIN, END, keys_table())
    text = _replaced(text, BEGIN_TASKS, END_TASKS, tasks_table())
    README.write_text(_replaced(text, BEGIN_MATRIX, END_MATRIX, overview()), encoding="utf-8")
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    library = LIBRARY.read_text(encoding="utf-8")
    LIBRARY.write_text(
        _replaced(library, BEGIN_RECIPES, END_RECIPES, recipe_table()), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
