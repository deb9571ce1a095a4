"""Noun phrases in English and German: gender, case, number, and the endings that follow from them.

Cases are ``nom``, ``acc`` and ``dat``. The endings are those of any German grammar: weak after a
definite article, mixed after ``ein`` and the possessives, strong where nothing shows the case.
"""

import random
from dataclasses import dataclass

from peftune.embedded.vocabulary_german import ADJECTIVES, NAMES, Adjective, Noun

# Rows: case; columns: masculine, feminine, neuter, plural.
_COLUMNS = "mfnp"
_DEFINITE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
_THIS = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
_MINE = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}
_WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
_MIXED = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
_STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
# The stem that takes the endings of `ein`.
POSSESSIVES = {"my": "mein", "his": "sein", "her": "ihr", "our": "unser"}
NUMBERS = {"two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "many": "viele"}
PRONOUNS = {
    "I": ("ich", "me", "mich", "mir"),
    "he": ("er", "him", "ihn", "ihm"),
    "she": ("sie", "her", "sie", "ihr"),
    "we": ("wir", "us", "uns", "uns"),
    "they": ("sie", "them", "sie", "ihnen"),
}


@dataclass(frozen=True)
class Phrase:
    """One noun phrase in both languages; `person` is 1s, 3s, 1p or 3p."""

    english: str
    english_object: str
    german: dict[str, str]
    person: str
    head: str
    """The English noun, name or pronoun."""
    adjective: str = ""
    indefinite: bool = False
    pronoun: bool = False


def _cell(table: dict[str, str], case: str, column: str) -> str:
    return table[case].split()[_COLUMNS.index(column)].replace("-", "")


def determined(determiner: str, case: str, column: str) -> tuple[str, dict[str, str]]:
    """The German determiner in front of a noun and the table of endings its adjective takes.

    `determiner` is English; an unknown one is a name in the genitive (``Anna's``).
    """
    if determiner == "the":
        return _cell(_DEFINITE, case, column), _WEAK
    if determiner in ("this", "these"):
        return f"dies{_cell(_THIS, case, column)}", _WEAK
    if determiner in ("a", "no"):
        return f"{'ein' if determiner == 'a' else 'kein'}{_cell(_MINE, case, column)}", _MIXED
    if determiner in POSSESSIVES:
        return f"{POSSESSIVES[determiner]}{_cell(_MINE, case, column)}", _MIXED
    if determiner == "many":
        return f"viele{'n' if case == 'dat' else ''}", _STRONG
    return NUMBERS.get(determiner, determiner.replace("'s", "s")), _STRONG


def german_noun(noun: Noun, case: str, plural: bool) -> str:
    """The noun in its case; a dative plural ends in n unless it ends in s."""
    if not plural:
        return noun.german
    ends = case != "dat" or noun.german_plural.endswith(("n", "s"))
    return noun.german_plural if ends else f"{noun.german_plural}n"


def german_phrase(
    determiner: str, adjective: Adjective | None, noun: Noun, case: str, plural: bool
) -> str:
    """Determiner, adjective and noun in one case."""
    column = "p" if plural else noun.gender
    word, endings = determined(determiner, case, column)
    described = [f"{adjective.stem}{_cell(endings, case, column)}"] if adjective else []
    return " ".join([word, *described, german_noun(noun, case, plural)])


def english_phrase(determiner: str, adjective: Adjective | None, noun: Noun, plural: bool) -> str:
    """The same in English, with ``an`` where the next word asks for it."""
    words = [adjective.english] if adjective else []
    words.append(noun.english_plural if plural else noun.english)
    if determiner == "a" and words[0][0] in "aeiou":
        determiner = "an"
    return " ".join([determiner, *words])


def phrase(determiner: str, adjective: Adjective | None, noun: Noun, plural: bool) -> Phrase:
    """A noun phrase in all cases."""
    english = english_phrase(determiner, adjective, noun, plural)
    return Phrase(
        english,
        english,
        {case: german_phrase(determiner, adjective, noun, case, plural) for case in _DEFINITE},
        "3p" if plural else "3s",
        noun.english,
        adjective.english if adjective else "",
        indefinite=determiner in ("a", "no"),
    )


def pronoun(english: str) -> Phrase:
    """A personal pronoun."""
    nominative, english_object, accusative, dative = PRONOUNS[english]
    forms = {"nom": nominative, "acc": accusative, "dat": dative}
    person = {"I": "1s", "we": "1p", "they": "3p"}.get(english, "3s")
    return Phrase(english, english_object, forms, person, english, pronoun=True)


def name(english: str) -> Phrase:
    """A first name, the same in every case."""
    return Phrase(english, english, dict.fromkeys(_DEFINITE, english), "3s", english)


def adjectives_of(noun: Noun) -> tuple[Adjective, ...]:
    """What can be said of this noun."""
    return next(adjectives for nouns, adjectives in ADJECTIVES if noun in nouns)


def draw_phrase(
    rng: random.Random, nouns: tuple[Noun, ...], definite: bool = False, described: float = 0.4
) -> Phrase:
    """A noun phrase about one of `nouns`; `definite` leaves out ``a`` and the numbers."""
    noun = rng.choice(nouns)
    plural = rng.random() < 0.2
    known = ["the", "the", "the", *POSSESSIVES, f"{rng.choice(NAMES)}'s"]
    if plural:
        options = [*known, "these"] if definite else [*known, *NUMBERS, *NUMBERS]
    else:
        options = [*known, "this"] if definite else [*known, "this", "a", "a", "a", "a", "a"]
    adjective = rng.choice(adjectives_of(noun)) if rng.random() < described else None
    return phrase(rng.choice(options), adjective, noun, plural)


def draw_person(rng: random.Random, people: tuple[Noun, ...]) -> Phrase:
    """A subject that can act: a noun phrase, a name or a pronoun."""
    kind = rng.random()
    if kind < 0.5:
        return draw_phrase(rng, people, definite=rng.random() < 0.8, described=0.3)
    if kind < 0.7:
        return name(rng.choice(NAMES))
    return pronoun(rng.choice(list(PRONOUNS)))
