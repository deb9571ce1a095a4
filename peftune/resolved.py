"""The resolved recipe: every value with its origin, and which of them the user set."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from peftune.engines.launch import Launch
from peftune.recipe import Recipe
from peftune.recipe_file import DEFAULT_MARK, Key, Source, Tree
from peftune.section import Section

OVERRIDE = "override"
WIDTH = 48
"""Column at which the comments begin, where the values leave room."""
SHOWN = 60
"""Characters of a long value in a message."""


class _OneLine(yaml.SafeDumper):
    """Writes every value on the line of its key, so that a comment can stand behind it."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLine.add_representer(str, _text)


def one_line(value: Any) -> str:
    """A value as YAML on one line."""
    listed = yaml.dump(
        [value],
        Dumper=_OneLine,
        default_flow_style=True,
        width=float("inf"),
        sort_keys=False,
        allow_unicode=True,
    )
    return listed.strip()[1:-1]


def typed(value: Any) -> str:
    """A value as the user may have typed it, shortened where it is long."""
    text = one_line(_plain(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump(mode="json", exclude_unset=True)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def origins(recipe: Recipe) -> dict[Key, str]:
    """By key: `default`, `override`, or file and line. Sections are left out, their keys are not."""
    return dict(_origins(recipe, (), recipe.source))


def _origins(section: Section, prefix: Key, source: Source) -> Iterator[tuple[Key, str]]:
    for name, value in section:
        key = (*prefix, name)
        if isinstance(value, Section):
            yield from _origins(value, key, source)
        else:
            yield key, _origin(section, name, key, source)


def _origin(section: Section, name: str, key: Key, source: Source) -> str:
    default = type(section).model_fields[name].get_default(call_default_factory=True)
    # The mark counts as long as the value still is what it says.
    marked = key in source.marked and section.__dict__[name] == default
    if name not in section.model_fields_set or marked:
        return DEFAULT_MARK
    line = (source.lines or {}).get(key)
    return f"{source.path}:{line}" if line else OVERRIDE


def set_by_user(recipe: Recipe) -> dict[str, Any]:
    """The keys that the user set, dotted, with their values; of mappings also each entry.

    A value that asks for nothing (null, false, 0 or empty) does not count.
    """
    found: dict[str, Any] = {}
    for key, origin in origins(recipe).items():
        value = _value(recipe, key)
        if origin == DEFAULT_MARK or not value:
            continue
        found[".".join(key)] = value
        if isinstance(value, Mapping):
            found |= {".".join((*key, str(entry))): inner for entry, inner in value.items()}
    return found


def _value(recipe: Recipe, key: Key) -> Any:
    value: Any = recipe
    for name in key:
        value = value.__dict__[name]
    return value


def place(recipe: Recipe, key: str) -> str:
    """File and line of a dotted key, as the beginning of a message."""
    return recipe.source.place(tuple(key.split(".")))


def resolved_yaml(recipe: Recipe, launch: Launch | None = None) -> str:
    """The recipe with every value and, as a comment behind it, where the value came from.

    What the launcher decided follows as comments. Loading the text gives an equal recipe.
    """
    found, values = origins(recipe), recipe.model_dump(mode="json")
    lines = [*_lines(recipe, values, (), found), *_launched(launch)]
    return "".join(f"{line}\n" for line in lines)


def marked_yaml(tree: Tree) -> str:
    """All values of a recipe as text, those that a recipe has by itself marked as such, so that
    loading it does not take them for the user's. Raises pydantic's ValidationError."""
    recipe = Recipe.model_validate(tree)
    recipe._source = Source(marked=frozenset(origins(recipe)))
    return resolved_yaml(recipe)


def _lines(
    section: Section, values: Mapping[str, Any], prefix: Key, found: Mapping[Key, str]
) -> Iterator[str]:
    indent = "  " * len(prefix)
    for name, value in section:
        key = (*prefix, name)
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _lines(value, values[name], key, found)
        else:
            yield commented(f"{indent}{name}: {one_line(values[name])}", found[key])


def commented(text: str, comment: str) -> str:
    """A line with a comment behind it."""
    return f"{text:<{WIDTH}}  # {comment}"


def _launched(launch: Launch | None) -> Iterator[str]:
    if launch is None:
        return
    yield "# decided by the launcher:"
    for name, origin in launch.origins.items():
        yield commented(f"#   {name}: {one_line(launch.__dict__[name])}", origin)
