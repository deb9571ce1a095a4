"""Clauses in English and German: verb forms, and where German puts the verb and the time.

A clause is drawn once as a `Clause`, then written as a statement, a question or a dependent clause.
German has the finite verb second in a statement, first in a question and last behind ``weil`` and
``dass``; participle, infinitive and the particle of a separable verb stand at the end.
"""

from dataclasses import dataclass

from peftune.embedded.noun_phrases import Phrase
from peftune.embedded.vocabulary_german import Verb

PERSONS = ("1s", "3s", "1p", "3p")
_HAVE = {"1s": "habe", "3s": "hat", "1p": "haben", "3p": "haben"}
_MODALS = {
    "can": "kann kann können können",
    "must": "muss muss müssen müssen",
    "should": "sollte sollte sollten sollten",
    "may": "darf darf dürfen dürfen",
    "will": "werde wird werden werden",
    "want to": "will will wollen wollen",
}
MODALS = tuple(_MODALS)
TENSES = ("present", "present", "progressive", "past", "past", *MODALS)
FREQUENT = {"often": "oft", "always": "immer", "never": "nie", "sometimes": "manchmal"}
TIMES = {
    "past": {
        "yesterday": "gestern",
        "last week": "letzte Woche",
        "on Monday": "am Montag",
        "on Sunday": "am Sonntag",
    },
    "future": {
        "tomorrow": "morgen",
        "next week": "nächste Woche",
        "on Friday": "am Freitag",
        "in the evening": "am Abend",
    },
    "present": {"today": "heute", "every day": "jeden Tag", "in the morning": "am Morgen"},
    "progressive": {"now": "jetzt", "today": "heute"},
}


@dataclass(frozen=True)
class Clause:
    """Who does what to whom, when and where, before it is put into words."""

    subject: Phrase
    verb: Verb
    tense: str
    target: Phrase | None = None
    recipient: Phrase | None = None
    time: tuple[str, str] = ("", "")
    frequency: tuple[str, str] = ("", "")
    place: tuple[str, str] = ("", "")
    negated: bool = False


def german_finite(verb: Verb, person: str) -> str:
    """The present tense of a German verb without its particle."""
    forms = {"1s": f"{verb.infinitive[:-2]}e", "3s": verb.german_third}
    return forms.get(person, verb.infinitive)


def english_finite(clause: Clause) -> tuple[str, str]:
    """Auxiliary, or nothing, and the main verb of an English clause that is not negated."""
    verb, person = clause.verb, clause.subject.person
    if clause.tense == "past":
        return "", verb.past
    if clause.tense == "progressive":
        return english_be(person, past=False), verb.progressive
    if clause.tense == "present":
        return "", verb.third if person == "3s" else verb.english
    if clause.tense == "want to":
        return "", f"{'wants' if person == '3s' else 'want'} to {verb.english}"
    return clause.tense, verb.english


def english_be(person: str, past: bool) -> str:
    """The form of ``to be``."""
    if past:
        return "was" if person in ("1s", "3s") else "were"
    return {"1s": "am", "3s": "is"}.get(person, "are")


def english_do(clause: Clause) -> tuple[str, str]:
    """Auxiliary and main verb of a question or a negation, ``do`` where there is no other."""
    auxiliary, main = english_finite(clause)
    if auxiliary:
        return auxiliary, main
    if clause.tense == "past":
        return "did", clause.verb.english
    bare = f"want to {clause.verb.english}" if clause.tense == "want to" else clause.verb.english
    return ("does" if clause.subject.person == "3s" else "do"), bare


def german_verb(clause: Clause) -> tuple[str, str]:
    """The finite verb and what closes the German clause."""
    verb, person = clause.verb, clause.subject.person
    if clause.tense == "past":
        return _HAVE[person], verb.participle
    if clause.tense in _MODALS:
        forms = dict(zip(PERSONS, _MODALS[clause.tense].split(), strict=True))
        return forms[person], f"{verb.particle}{verb.infinitive}"
    return german_finite(verb, person), verb.particle


def _english_objects(clause: Clause) -> list[str]:
    objects = [phrase for phrase in (clause.recipient, clause.target) if phrase]
    return [phrase.english_object for phrase in objects]


def _german_middle(clause: Clause, time: bool) -> list[str]:
    """What stands between the finite verb and the end: pronouns, time, objects, ``nicht``, place."""
    recipient = clause.recipient.german["dat"] if clause.recipient else ""
    target = clause.target.german["acc"] if clause.target else ""
    # With an indefinite object German denies the noun (kein), which the phrase already does.
    denies_noun = clause.target is not None and clause.target.indefinite
    denial = "nicht" if clause.negated and not denies_noun else ""
    middle = [clause.time[1] if time else "", recipient, clause.frequency[1], target, denial]
    pronouns = [
        middle.pop(middle.index(phrase.german[case]))
        for phrase, case in ((clause.recipient, "dat"), (clause.target, "acc"))
        if phrase and phrase.pronoun
    ]
    return [*pronouns, *middle, clause.place[1]]


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def english_statement(clause: Clause, time_first: bool = False) -> str:
    """An English main or dependent clause without capital and full stop."""
    subject, often = clause.subject.english, clause.frequency[0]
    if clause.negated:
        auxiliary, main = english_do(clause)
        auxiliary = "cannot" if auxiliary == "can" else f"{auxiliary} not"
    else:
        auxiliary, main = english_finite(clause)
    end = [*_english_objects(clause), clause.place[0]]
    time = clause.time[0]
    if time_first:
        return _joined(time, subject, auxiliary, often, main, *end)
    return _joined(subject, auxiliary, often, main, *end, time)


def german_statement(clause: Clause, time_first: bool = False) -> str:
    """A German main clause, the finite verb second."""
    finite, end = german_verb(clause)
    subject, middle = clause.subject.german["nom"], _german_middle(clause, not time_first)
    if time_first:
        return _joined(clause.time[1], finite, subject, *middle, end)
    return _joined(subject, finite, *middle, end)


def german_dependent(clause: Clause) -> str:
    """A German clause behind a conjunction, the finite verb last."""
    finite, end = german_verb(clause)
    joined = clause.verb.particle and end == clause.verb.particle
    verbs = [f"{end}{finite}"] if joined else [end, finite]
    return _joined(clause.subject.german["nom"], *_german_middle(clause, True), *verbs)


def english_question(clause: Clause, asked: str = "") -> str:
    """A yes-no question, or one behind a question word."""
    auxiliary, main = english_do(clause)
    end = [*_english_objects(clause), clause.place[0], clause.time[0]]
    return _joined(asked, auxiliary, clause.subject.english, main, *end)


def german_question(clause: Clause, asked: str = "") -> str:
    """The same in German, the finite verb in front of the subject."""
    finite, end = german_verb(clause)
    return _joined(asked, finite, clause.subject.german["nom"], *_german_middle(clause, True), end)
