"""Reads a recipe's YAML safely: small, flat, without anchors, and knowing each key's line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from peftune.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
# YAML 1.1 wants a dot in a float, so `2e-4` arrives as text; on the command line it is a number.
PLAIN_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)

DEFAULT_MARK = "default"
"""The comment behind a value that nobody set, in a recipe that a run has written."""

Tree = dict[str, Any]
Key = tuple[str, ...]
Lines = dict[Key, int]


class RecipeFile(NamedTuple):
    """What a recipe's YAML holds."""

    tree: Tree
    """The values as nested dicts."""
    lines: Lines
    """The line (from 1) on which each key stands; keys in a list count from 0."""
    marked: frozenset[Key]
    """The keys behind whose values a comment says that they are defaults."""


@dataclass(frozen=True)
class Source:
    """Where the values came from."""

    path: Path = Path("recipe")
    lines: Lines | None = None
    """Of the keys whose values still come from the file; None: there is no file."""
    marked: frozenset[Key] = frozenset()

    def place(self, key: Key) -> str:
        """File and line of a key as the beginning of a message."""
        line = (self.lines or {}).get(key)
        return f"{self.path}:{line}: " if line else f"{self.path}: "


def read_recipe(path: Path) -> RecipeFile:
    """The recipe's values, and where each key stands.

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
        lines = _key_lines(path, root)
        return RecipeFile(yaml.safe_load(text), lines, frozenset(_marked(text, root)))
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


def _key_lines(path: Path, root: yaml.Node) -> Lines:
    lines: Lines = {}
    for key, key_node, _ in _pairs(root):
        line = key_node.start_mark.line + 1
        if key in lines:
            raise RecipeError(
                f"{path}:{line}: {'.'.join(key)} is set twice (first on line {lines[key]})."
            )
        lines[key] = line
    return lines


def _marked(text: str, root: yaml.Node) -> Iterator[Key]:
    """The keys whose values are followed by nothing but the comment that calls them defaults."""
    for key, _, value_node in _pairs(root):
        behind = text[value_node.end_mark.index :].partition("\n")[0]
        if behind.strip() == f"# {DEFAULT_MARK}":
            yield key


def _pairs(root: yaml.Node | None) -> Iterator[tuple[Key, yaml.Node, yaml.Node]]:
    """Each key with the nodes of its name and its value, also of mappings inside of lists."""
    pending: list[tuple[Key, yaml.Node | None]] = [((), root)]
    while pending:
        prefix, node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                key = (*prefix, str(key_node.value))
                yield key, key_node, value_node
                pending.append((key, value_node))
        elif isinstance(node, yaml.SequenceNode):
            pending += [((*prefix, str(index)), item) for index, item in enumerate(node.value)]


def parse_override(argument: str) -> tuple[Key, Any]:
    """Split `section.key=value`; the value is read as YAML. Raises RecipeError."""
    match = OVERRIDE.fullmatch(argument)
    if match is None:
        raise RecipeError(f"{argument!r}: an override looks like section.key=value.")
    text, key = match["value"], tuple(match["key"].split("."))
    try:
        value = float(text) if PLAIN_FLOAT.fullmatch(text) else yaml.safe_load(text)
        names = [name for name, _, _ in _pairs(yaml.compose(text, Loader=yaml.SafeLoader))]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{argument!r}: the value is not valid YAML.") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"{argument!r}: {'.'.join((*key, *twice))} is set twice.")
    return key, value


SHORT_FORMS = {"resume": "checkpoint"}
"""Sections that may be written as a text, with the key it is short for."""


def with_overrides(tree: Tree, overrides: list[str]) -> Tree:
    """A copy of `tree` in which each override has replaced or added its key."""
    result = dict(tree)
    for argument in overrides:
        key, value = parse_override(argument)
        result = _replaced(result, key, value, argument)
    return result


def source_of(path: Path, file: RecipeFile, overrides: list[str]) -> Source:
    """Where the values come from after the overrides: no longer from the file, for theirs."""
    replaced = [parse_override(argument)[0] for argument in overrides]

    def kept(key: Key) -> bool:
        return not any(key[: len(start)] == start for start in replaced)

    lines = {key: line for key, line in file.lines.items() if kept(key)}
    return Source(path, lines, frozenset(filter(kept, file.marked)))


def _replaced(tree: Tree, key: Key, value: Any, argument: str) -> Tree:
    head, *rest = key
    if not rest:
        return {**tree, head: value}
    branch = tree.get(head) or {}
    if isinstance(branch, str) and head in SHORT_FORMS:
        branch = {SHORT_FORMS[head]: branch}
    if not isinstance(branch, dict):
        raise RecipeError(f"{argument!r}: {head} is not a section, it is {branch!r}.")
    return {**tree, head: _replaced(branch, tuple(rest), value, argument)}
