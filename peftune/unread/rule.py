"""What a key that nothing reads is, and how it is refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from peftune.errors import RecipeError
from peftune.recipe import Recipe
from peftune.resolved import place, set_by_user, typed

Known = TypeVar("Known")


@dataclass(frozen=True)
class Unread(Generic[Known]):
    """Keys of the recipe, and when nothing reads them."""

    keys: tuple[str, ...]
    """Dotted; `data.accept.overlong` is an entry of a mapping."""
    when: Callable[[Known], bool]
    why: str
    way_out: str = "remove it"


def refuse_unread(recipe: Recipe, rules: Iterable[Unread[Known]], known: Known) -> None:
    """Raise RecipeError with a line for each key that the user set and nothing reads."""
    own = set_by_user(recipe)
    problems = [
        f"{place(recipe, key)}{key}: {typed(own[key])}: {rule.why}; {rule.way_out}."
        for rule in rules
        if not own.keys().isdisjoint(rule.keys) and rule.when(known)
        for key in rule.keys
        if key in own
    ]
    if problems:
        raise RecipeError("\n".join(problems))
