"""Expansion of sentence templates: alternatives in brackets and placeholders in braces.

``[Hi|Hello] {b}! Is your {tool} free on {day}?`` picks one alternative per bracket (brackets may
nest) and fills each placeholder. ``{an_tool}`` adds the article, ``{a_he}`` gives the pronoun of
the person ``a``, ``{An_tool}`` and ``{A_he}`` the capitalised forms.
"""

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from peftune.embedded import vocabulary

_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SLOT = re.compile(r"(?:[Aa]n_|i_)?(?P<name>(?P<pool>[a-z]+)\d?)")
_YOO_SOUND = ("uni", "use", "eu", "one", "uku")
_PRONOUNS = {
    "female": {"he": "she", "his": "her", "him": "her"},
    "male": {"he": "he", "his": "his", "him": "him"},
}


@dataclass(frozen=True)
class Outcome:
    """How a dialogue ends: its last turns and the sentence that reports them."""

    turns: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class Scenario:
    """One everyday situation between ``a``, who raises it, and ``b``."""

    name: str
    opening: str
    detail: tuple[str, ...]
    summary: str
    outcomes: tuple[Outcome, ...]

    def texts(self) -> list[str]:
        """Every template of the scenario."""
        ends = [text for outcome in self.outcomes for text in (*outcome.turns, outcome.summary)]
        return [self.opening, *self.detail, self.summary, *ends]


@dataclass(frozen=True)
class Person:
    """A name and the key of its pronouns."""

    name: str
    gender: str


def article(noun: str) -> str:
    """The noun with the indefinite article that its first sound asks for."""
    vowel = noun[0].lower() in "aeiou" and not noun.lower().startswith(_YOO_SOUND)
    return f"{'an' if vowel else 'a'} {noun}"


def slot_names(texts: Iterable[str]) -> list[str]:
    """The vocabulary placeholders of the templates, sorted, each once."""
    found = set()
    for placeholder in _PLACEHOLDER.findall(" ".join(texts)):
        match = _SLOT.fullmatch(placeholder)
        if match and match["pool"] in vocabulary.POOLS:
            found.add(match["name"])
    return sorted(found)


def draw_people(
    rng: random.Random, count: int, names: Collection[str] | None = None
) -> list[Person]:
    """Distinct people, from all names or only from the given ones."""
    genders = {name: "female" for name in vocabulary.FEMALE_NAMES}
    genders |= {name: "male" for name in vocabulary.MALE_NAMES}
    allowed = [name for name in genders if names is None or name in names]
    return [Person(name, genders[name]) for name in rng.sample(allowed, count)]


def draw_slots(
    rng: random.Random, names: Sequence[str], pools: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """A value for every slot; slots of one pool differ, and rise with the number if ordered."""
    values: dict[str, str] = {}
    for pool in sorted({name.rstrip("0123456789") for name in names}):
        slots = [name for name in names if name.rstrip("0123456789") == pool]
        places = rng.sample(range(len(pools[pool])), len(slots))
        if pool in vocabulary.ORDERED_POOLS:
            places.sort()
        values |= {slot: pools[pool][place] for slot, place in zip(slots, places, strict=True)}
    return values


def _person_fields(role: str, person: Person) -> dict[str, str]:
    """The name and pronouns of one role."""
    fields = {role: person.name}
    for pronoun, word in _PRONOUNS[person.gender].items():
        fields[f"{role}_{pronoun}"] = word
        fields[f"{role.upper()}_{pronoun}"] = word.capitalize()
    return fields


def _slot_fields(slot: str, value: str) -> dict[str, str]:
    """The value of one slot plain, with its article, and for an excuse in the first person."""
    with_article = article(value)
    fields = {slot: value, f"an_{slot}": with_article, f"An_{slot}": with_article.capitalize()}
    if slot.startswith("excuse"):
        verb, rest = value.split(" ", 1)
        fields[f"i_{slot}"] = f"{'I have' if verb == 'has' else 'I am'} {rest}"
    return fields


def template_fields(people: Sequence[Person], slots: Mapping[str, str]) -> dict[str, str]:
    """Everything a template may name: people ``a``, ``b``, ... and the drawn slots."""
    fields: dict[str, str] = {}
    for role, person in zip("abcdefgh", people, strict=False):
        fields |= _person_fields(role, person)
    for slot, value in slots.items():
        fields |= _slot_fields(slot, value)
    return fields


def expand(template: str, fields: Mapping[str, str], rng: random.Random) -> str:
    """One sentence of the template: alternatives chosen, placeholders filled."""
    while _ALTERNATIVES.search(template):
        template = _ALTERNATIVES.sub(lambda match: rng.choice(match[1].split("|")), template)
    filled = _PLACEHOLDER.sub(lambda match: fields[match[1]], template)
    return " ".join(filled.split(" "))
