"""Reads a recipe's YAML safely: small, flat, without anchors, and knowing each key's line."""

import re
from pathlib import Path
from typing import Any

import yaml

from peftune.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
# YAML 1.1 wants a dot in a float, so `2e-4` arrives as text; on the command line it is a number.
PLAIN_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)

Tree = dict[str, Any]
Lines = dict[tuple[str, ...], int]


def read_recipe(path: Path) -> tuple[Tree, Lines]:
    """The recipe's values as nested dicts, and the line (from 1) on which each key stands.

    Raises RecipeError for a file that is missing, too large, not YAML, nested deeper than
    MAX_DEPTH, or that uses anchors, aliases, tags or a key twice.
    """
    text = _read_text(path)
    try:
        _check_events(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise RecipeError(
                f"{path}: the file is empty; copy a recipe from recipes/ and change it."
            )
        if not isinstance(root, yaml.MappingNode):
            raise RecipeError(
                f"{path}: a recipe is a list of `key: value` lines; this file is not."
            )
        return yaml.safe_load(text), _key_lines(path, root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise RecipeError(f"{path}: not valid YAML: {first_line}.") from error


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe file.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RecipeError(
            f"{path}: {size:,} bytes; a recipe has at most {MAX_BYTES:,}. Data belongs in data.path."
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from error


def _check_events(path: Path, text: str) -> None:
    """Walk the events before anything is built: aliases can make 1 kB of text fill the memory."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or _is_anchored(event):
            raise RecipeError(
                f"{path}:{line}: anchors and aliases (& and *) are not allowed in a recipe; "
                "write the value out."
            )
        if _is_tagged(event):
            raise RecipeError(
                f"{path}:{line}: tags (!!) and merge keys (<<) are not allowed in a recipe; write "
                "the value out."
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise RecipeError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels.")


def _is_anchored(event: yaml.Event) -> bool:
    return isinstance(event, yaml.NodeEvent) and event.anchor is not None


def _is_tagged(event: yaml.Event) -> bool:
    merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None
    tagged = isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag
    return merges or bool(tagged)


def _key_lines(path: Path, root: yaml.MappingNode) -> Lines:
    lines: Lines = {}
    pending: list[tuple[tuple[str, ...], yaml.MappingNode]] = [((), root)]
    while pending:
        prefix, mapping = pending.pop()
        for key_node, value_node in mapping.value:
            key, line = (*prefix, str(key_node.value)), key_node.start_mark.line + 1
            if key in lines:
                raise RecipeError(
                    f"{path}:{line}: {'.'.join(key)} is set twice (first on line {lines[key]})."
                )
            lines[key] = line
            if isinstance(value_node, yaml.MappingNode):
                pending.append((key, value_node))
    return lines


def parse_override(argument: str) -> tuple[tuple[str, ...], Any]:
    """Split `section.key=value`; the value is read as YAML. Raises RecipeError."""
    match = OVERRIDE.fullmatch(argument)
    if match is None:
        raise RecipeError(f"{argument!r}: an override looks like section.key=value.")
    text = match["value"]
    try:
        value = float(text) if PLAIN_FLOAT.fullmatch(text) else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{argument!r}: the value is not valid YAML.") from error
    return tuple(match["key"].split(".")), value


def with_overrides(tree: Tree, overrides: list[str]) -> Tree:
    """A copy of `tree` in which each override has replaced or added its key."""
    result = dict(tree)
    for argument in overrides:
        key, value = parse_override(argument)
        result = _replaced(result, key, value, argument)
    return result


def lines_kept(lines: Lines, overrides: list[str]) -> Lines:
    """The lines of the keys whose values still come from the file."""
    replaced = [parse_override(argument)[0] for argument in overrides]
    return {
        key: line
        for key, line in lines.items()
        if not any(key[: len(start)] == start for start in replaced)
    }


def _replaced(tree: Tree, key: tuple[str, ...], value: Any, argument: str) -> Tree:
    head, *rest = key
    if not rest:
        return {**tree, head: value}
    branch = tree.get(head) or {}
    if not isinstance(branch, dict):
        raise RecipeError(f"{argument!r}: {head} is not a section, it is {branch!r}.")
    return {**tree, head: _replaced(branch, tuple(rest), value, argument)}
