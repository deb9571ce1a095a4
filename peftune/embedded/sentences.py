"""Kinds of sentences in English and German, each drawn in both languages at once."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from peftune.embedded import vocabulary_german as words
from peftune.embedded.clauses import (
    FREQUENT,
    MODALS,
    TENSES,
    TIMES,
    Clause,
    english_be,
    english_question,
    english_statement,
    german_dependent,
    german_question,
    german_statement,
)
from peftune.embedded.noun_phrases import (
    PRONOUNS,
    Phrase,
    adjectives_of,
    draw_person,
    draw_phrase,
    phrase,
    pronoun,
)

PREPOSITIONS = {
    "under": "unter",
    "behind": "hinter",
    "next to": "neben",
    "in front of": "vor",
}
BE = {"1s": "bin war", "3s": "ist war", "1p": "sind waren", "3p": "sind waren"}
DEGREES = {"": "", "very": "sehr", "too": "zu", "not": "nicht"}
ASKED = {"why": "warum", "when": "wann", "where": "wo"}
THOUGHTS = {
    "I think that": "ich glaube, dass",
    "we know that": "wir wissen, dass",
    "she says that": "sie sagt, dass",
}


@dataclass(frozen=True)
class Pair:
    """One sentence in both languages, and the pairs of words that it combines."""

    english: str
    german: str
    combinations: tuple[str, ...]


def draw_place(rng: random.Random) -> tuple[str, str]:
    """``in`` and a place: the German dative, with ``in dem`` drawn together."""
    place = draw_phrase(rng, words.PLACES, definite=True, described=0.2)
    german = f"in {place.german['dat']}".replace("in dem ", "im ")
    return f"in {place.english}", german


def draw_clause(rng: random.Random, tenses: tuple[str, ...] = TENSES) -> Clause:
    """A clause about someone who does something; its words fit each other."""
    subject, tense = draw_person(rng, words.PEOPLE), rng.choice(tenses)
    kind = rng.random()
    if kind < 0.2:
        clause = Clause(subject, rng.choice(words.RESTING), tense, place=draw_place(rng))
    elif kind < 0.3:
        verb = rng.choice(words.HELPING)
        clause = Clause(subject, verb, tense, recipient=_draw_target(rng, words.PEOPLE, subject))
    elif kind < 0.45:
        recipient = _draw_target(rng, words.PEOPLE, subject)
        target = draw_phrase(rng, words.OBJECTS)
        clause = Clause(subject, rng.choice(words.GIVING), tense, target, recipient)
    else:
        verbs, nouns = rng.choice(words.ACTIONS)
        target = _draw_target(rng, nouns, subject)
        clause = Clause(subject, rng.choice(verbs), tense, target)
    return _with_time(rng, _fitting(rng, clause))


def _draw_target(rng: random.Random, nouns: tuple[words.Noun, ...], subject: Phrase) -> Phrase:
    """An object; a person may be a pronoun, though never the subject again."""
    if nouns is words.PEOPLE and rng.random() < 0.3:
        return pronoun(rng.choice([one for one in PRONOUNS if one[0] != subject.head[0]]))
    return draw_phrase(rng, nouns)


def _fitting(rng: random.Random, clause: Clause) -> Clause:
    """The clause with a verb and tense that English has, maybe denied."""
    if clause.tense == "progressive" and clause.verb.progressive == "-":
        clause = replace(clause, tense="present")
    if clause.target and clause.target.pronoun and " " in clause.verb.english:
        clause = replace(clause, target=draw_phrase(rng, words.PEOPLE, definite=True))
    # `must not` is no `muss nicht`.
    if rng.random() < 0.15 and clause.tense != "must":
        return _denied(rng, clause)
    return clause


def _denied(rng: random.Random, clause: Clause) -> Clause:
    """The clause with ``not``: German denies a definite object by nicht, an indefinite by kein."""
    target = clause.target
    if target and not target.pronoun:
        nouns = next(nouns for verbs, nouns in _verb_objects() if clause.verb in verbs)
        target = draw_phrase(rng, nouns, definite=True)
        if rng.random() < 0.4:
            noun = rng.choice(nouns)
            german = phrase("no", None, noun, False).german
            target = replace(phrase("a", None, noun, False), german=german)
    return replace(clause, negated=True, target=target)


def _verb_objects() -> tuple[tuple[tuple[words.Verb, ...], tuple[words.Noun, ...]], ...]:
    return (*words.ACTIONS, (words.GIVING, words.OBJECTS))


def _with_time(rng: random.Random, clause: Clause) -> Clause:
    """The clause with a time or a frequency that goes with its tense, or with neither."""
    kind = rng.random()
    if kind < 0.4:
        times = TIMES["future" if clause.tense in MODALS else clause.tense]
        return replace(clause, time=rng.choice(list(times.items())))
    if kind < 0.6 and clause.tense in ("present", "past") and not clause.negated:
        return replace(clause, frequency=rng.choice(list(FREQUENT.items())))
    return clause


def clause_combinations(clause: Clause) -> tuple[str, ...]:
    """What a test sentence may combine anew: the verb with its object and its place."""
    verb = clause.verb.english
    found = [f"{verb} {clause.target.head}"] if clause.target and not clause.target.pronoun else []
    if clause.place[0]:
        found.append(f"{verb} {clause.place[0].split()[-1]}")
    return tuple(found)


def statement(rng: random.Random) -> Pair:
    """A main clause, the time sometimes in front."""
    clause = draw_clause(rng)
    first = bool(clause.time[0]) and rng.random() < 0.5
    english, german = english_statement(clause, first), german_statement(clause, first)
    return Pair(f"{english}.", f"{german}.", clause_combinations(clause))


def question(rng: random.Random) -> Pair:
    """A yes-no question or one that asks why, when or where."""
    clause = replace(draw_clause(rng), frequency=("", ""), negated=False)
    if clause.target and clause.target.german["acc"].startswith("kein"):
        clause = replace(clause, target=None, verb=rng.choice(words.RESTING), recipient=None)
    asked = rng.choice(["", "", *ASKED])
    if asked == "when":
        clause = replace(clause, time=("", ""))
    if asked == "where":
        clause = replace(clause, place=("", ""))
    english = english_question(clause, asked)
    german = german_question(clause, ASKED.get(asked, ""))
    return Pair(f"{english}?", f"{german}?", clause_combinations(clause))


def reported(rng: random.Random) -> Pair:
    """A thought about a clause, whose German verb stands last."""
    clause = draw_clause(rng)
    english, german = rng.choice(list(THOUGHTS.items()))
    return Pair(
        f"{english} {english_statement(clause)}.",
        f"{german} {german_dependent(clause)}.",
        clause_combinations(clause),
    )


def reason(rng: random.Random) -> Pair:
    """A main clause and why: somebody or something is in a state."""
    clause = replace(draw_clause(rng, ("present", "past")), time=("", ""))
    owner, adjective, combination = _draw_state(rng)
    past = clause.tense == "past"
    english_state = f"{owner.english} {english_be(owner.person, past)} {adjective.english}"
    german_state = f"{owner.german['nom']} {adjective.german} {BE[owner.person].split()[past]}"
    return Pair(
        f"{english_statement(clause)} because {english_state}.",
        f"{german_statement(clause)}, weil {german_state}.",
        (*clause_combinations(clause), combination),
    )


def _draw_state(rng: random.Random) -> tuple[Phrase, words.Adjective, str]:
    nouns = rng.choice([nouns for nouns, _ in words.ADJECTIVES])
    noun = rng.choice(nouns)
    owner = draw_phrase(rng, (noun,), definite=True, described=0.0)
    adjective = rng.choice(adjectives_of(noun))
    return owner, adjective, f"{adjective.english} {noun.english}"


def state(rng: random.Random) -> Pair:
    """Somebody or something is or was so, very so, or not so; or the question whether."""
    owner, adjective, combination = _draw_state(rng)
    past = rng.random() < 0.4
    be, german_be = english_be(owner.person, past), BE[owner.person].split()[past]
    english, german = rng.choice(list(DEGREES.items()))
    described = " ".join(word for word in (english, adjective.english) if word)
    german_described = " ".join(word for word in (german, adjective.german) if word)
    subject, german_subject = owner.english, owner.german["nom"]
    if rng.random() < 0.3:
        asks = f"{be} {subject} {described}?"
        return Pair(asks, f"{german_be} {german_subject} {german_described}?", (combination,))
    says = f"{subject} {be} {described}."
    return Pair(says, f"{german_subject} {german_be} {german_described}.", (combination,))


def location(rng: random.Random) -> Pair:
    """Where something is, the question where it is, or that it is there at all."""
    things = (*words.OBJECTS, *words.ANIMALS)
    owner = draw_phrase(rng, things, definite=True)
    kind = rng.random()
    if kind < 0.2:
        be, german_be = english_be(owner.person, past=False), BE[owner.person].split()[0]
        return Pair(f"where {be} {owner.english}?", f"wo {german_be} {owner.german['nom']}?", ())
    if kind < 0.5:
        place, german_place = draw_place(rng)
        found = phrase(*_new_thing(rng, things))
        there = "are" if found.person == "3p" else "is"
        return Pair(
            f"there {there} {found.english} {place}.",
            f"{german_place} gibt es {found.german['acc']}.",
            (f"{found.head} {place.split()[-1]}",),
        )
    near = draw_phrase(rng, words.FURNITURE, definite=True)
    preposition, german_preposition = rng.choice(list(PREPOSITIONS.items()))
    past = rng.random() < 0.3
    be, german_be = english_be(owner.person, past), BE[owner.person].split()[past]
    return Pair(
        f"{owner.english} {be} {preposition} {near.english}.",
        f"{owner.german['nom']} {german_be} {german_preposition} {near.german['dat']}.",
        (f"{owner.head} {near.head}",),
    )


def _new_thing(
    rng: random.Random, nouns: tuple[words.Noun, ...]
) -> tuple[str, words.Adjective | None, words.Noun, bool]:
    """Determiner, adjective, noun and number of something not mentioned before."""
    noun, plural = rng.choice(nouns), rng.random() < 0.4
    adjective = rng.choice(adjectives_of(noun)) if rng.random() < 0.5 else None
    return (rng.choice(["two", "three", "many"]) if plural else "a"), adjective, noun, plural


def request(rng: random.Random) -> Pair:
    """A polite request."""
    verbs, nouns = rng.choice((*words.ACTIONS[3:], (words.BUYING[3:], words.OBJECTS)))
    verb, target = rng.choice(verbs), draw_phrase(rng, nouns)
    german = f"bitte {verb.infinitive} Sie {target.german['acc']} {verb.particle}".strip()
    return Pair(
        f"please {verb.english} {target.english}.", f"{german}.", (f"{verb.english} {target.head}",)
    )


# How often each kind is drawn.
KINDS: tuple[Callable[[random.Random], Pair], ...] = (
    *(statement,) * 8,
    *(question,) * 3,
    *(reported,) * 2,
    *(reason,) * 2,
    *(state,) * 2,
    *(location,) * 3,
    request,
)
