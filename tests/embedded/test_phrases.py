"""The German of the parallel text: forms from any grammar, written down here by hand."""

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from peftune.data.overlap import normalized
from peftune.embedded import make_phrases, sentences
from peftune.embedded import vocabulary_german as words
from peftune.embedded.clauses import (
    Clause,
    english_question,
    english_statement,
    german_dependent,
    german_question,
    german_statement,
)
from peftune.embedded.noun_phrases import Phrase, name, phrase, pronoun
from peftune.embedded.vocabulary_german import Adjective, Noun, Verb
from tests.embedded.test_data_sets import read_all, readme


def noun(english: str) -> Noun:
    (found,) = {one for nouns, _ in words.ADJECTIVES for one in nouns if one.english == english}
    return found


def adjective(english: str) -> Adjective:
    found = [one for _, adjectives in words.ADJECTIVES for one in adjectives]
    return next(one for one in found if one.english == english)


def verb(english: str) -> Verb:
    verbs = (*words.GIVING, *words.HELPING, *words.RESTING)
    return next(
        one
        for one in (*verbs, *(verb for verbs, _ in words.ACTIONS for verb in verbs))
        if one.english == english
    )


def made(determiner: str, described: str, english: str, plural: bool = False) -> Phrase:
    return phrase(determiner, adjective(described) if described else None, noun(english), plural)


@pytest.mark.parametrize(
    ("determiner", "described", "english", "plural", "nominative", "accusative", "dative"),
    [
        ("the", "old", "dog", False, "der alte Hund", "den alten Hund", "dem alten Hund"),
        ("the", "old", "cat", False, "die alte Katze", "die alte Katze", "der alten Katze"),
        ("the", "old", "horse", False, "das alte Pferd", "das alte Pferd", "dem alten Pferd"),
        ("the", "old", "dog", True, "die alten Hunde", "die alten Hunde", "den alten Hunden"),
        ("a", "red", "hat", False, "ein roter Hut", "einen roten Hut", "einem roten Hut"),
        ("a", "red", "bag", False, "eine rote Tasche", "eine rote Tasche", "einer roten Tasche"),
        ("a", "red", "car", False, "ein rotes Auto", "ein rotes Auto", "einem roten Auto"),
        ("my", "", "sister", False, "meine Schwester", "meine Schwester", "meiner Schwester"),
        (
            "our",
            "sad",
            "father",
            False,
            "unser trauriger Vater",
            "unseren traurigen Vater",
            "unserem traurigen Vater",
        ),
        ("his", "new", "car", True, "seine neuen Autos", "seine neuen Autos", "seinen neuen Autos"),
        ("this", "", "key", False, "dieser Schlüssel", "diesen Schlüssel", "diesem Schlüssel"),
        (
            "three",
            "small",
            "child",
            True,
            "drei kleine Kinder",
            "drei kleine Kinder",
            "drei kleinen Kindern",
        ),
        ("many", "", "apple", True, "viele Äpfel", "viele Äpfel", "vielen Äpfeln"),
        (
            "these",
            "tired",
            "woman",
            True,
            "diese müden Frauen",
            "diese müden Frauen",
            "diesen müden Frauen",
        ),
        (
            "Anna's",
            "blue",
            "car",
            False,
            "Annas blaues Auto",
            "Annas blaues Auto",
            "Annas blauem Auto",
        ),
        (
            "Anna's",
            "big",
            "tree",
            False,
            "Annas großer Baum",
            "Annas großen Baum",
            "Annas großem Baum",
        ),
        (
            "a",
            "expensive",
            "coat",
            False,
            "ein teurer Mantel",
            "einen teuren Mantel",
            "einem teuren Mantel",
        ),
        (
            "the",
            "dark",
            "cellar",
            False,
            "der dunkle Keller",
            "den dunklen Keller",
            "dem dunklen Keller",
        ),
    ],
)
def test_declension(
    determiner: str,
    described: str,
    english: str,
    plural: bool,
    nominative: str,
    accusative: str,
    dative: str,
) -> None:
    forms = made(determiner, described, english, plural).german
    assert forms == {"nom": nominative, "acc": accusative, "dat": dative}


TOM = name("Tom")
HE, ME, THEY = pronoun("he"), pronoun("I"), pronoun("they")
DOOR = made("the", "", "door")
CHILD = made("the", "", "child")
CAKE = made("a", "fresh", "cake")
YESTERDAY, TODAY = ("yesterday", "gestern"), ("today", "heute")


@pytest.mark.parametrize(
    ("clause", "write", "german"),
    [
        (Clause(TOM, verb("open"), "present", DOOR), german_statement, "Tom macht die Tür auf"),
        (Clause(TOM, verb("open"), "past", DOOR), german_statement, "Tom hat die Tür aufgemacht"),
        (Clause(ME, verb("open"), "can", DOOR), german_statement, "ich kann die Tür aufmachen"),
        (Clause(HE, verb("open"), "present", DOOR), german_dependent, "er die Tür aufmacht"),
        (Clause(HE, verb("open"), "past", DOOR), german_dependent, "er die Tür aufgemacht hat"),
        (Clause(HE, verb("open"), "must", DOOR), german_dependent, "er die Tür aufmachen muss"),
        (Clause(THEY, verb("open"), "present", DOOR), german_question, "machen sie die Tür auf"),
        (Clause(TOM, verb("give"), "past", CAKE, CHILD), german_statement,
         "Tom hat dem Kind einen frischen Kuchen gegeben"),
        (Clause(ME, verb("help"), "present", recipient=CHILD), german_statement,
         "ich helfe dem Kind"),
        (Clause(TOM, verb("help"), "present", recipient=pronoun("she"), time=TODAY),
         german_statement, "Tom hilft ihr heute"),
        (Clause(TOM, verb("buy"), "past", CAKE, time=YESTERDAY), german_statement,
         "Tom hat gestern einen frischen Kuchen gekauft"),
        (Clause(TOM, verb("open"), "present", DOOR, negated=True), german_statement,
         "Tom macht die Tür nicht auf"),
        (Clause(TOM, verb("sleep"), "past", place=("in the garden", "im Garten"), negated=True),
         german_statement, "Tom hat nicht im Garten geschlafen"),
    ],
)  # fmt: skip
def test_the_order_of_german_words(
    clause: Clause, write: Callable[[Clause], str], german: str
) -> None:
    assert write(clause) == german


def test_a_time_in_front_leaves_the_verb_second() -> None:
    clause = Clause(TOM, verb("buy"), "past", CAKE, time=YESTERDAY)
    german = german_statement(clause, time_first=True)
    assert german == "gestern hat Tom einen frischen Kuchen gekauft"
    assert english_statement(clause, time_first=True) == "yesterday Tom bought a fresh cake"


@pytest.mark.parametrize(
    ("tense", "negated", "statement", "question"),
    [
        ("present", False, "Tom opens the door", "does Tom open the door"),
        ("past", True, "Tom did not open the door", "did Tom open the door"),
        ("progressive", True, "Tom is not opening the door", "is Tom opening the door"),
        ("can", True, "Tom cannot open the door", "can Tom open the door"),
        ("want to", False, "Tom wants to open the door", "does Tom want to open the door"),
        ("want to", True, "Tom does not want to open the door", "does Tom want to open the door"),
    ],
)
def test_english_verbs(tense: str, negated: bool, statement: str, question: str) -> None:
    clause = Clause(TOM, verb("open"), tense, DOOR, negated=negated)
    assert english_statement(clause) == statement
    assert english_question(replace(clause, negated=False)) == question


def test_in_and_the_article_are_drawn_together() -> None:
    places = [sentences.draw_place(random.Random(seed)) for seed in range(300)]
    for english, german in places:
        assert "in dem " not in german
        if german.startswith("im "):
            assert english.startswith("in the ")
    assert sum(german.startswith("im ") for _, german in places) > 20


def test_an_indefinite_object_is_denied_by_kein() -> None:
    rows = [row for row in read_all("phrases") if re.search(r"\bkein", row["german"])]
    assert len(rows) > 20
    for row in rows:
        assert re.search(r"\b(not|cannot)\b.* an? ", row["english"]), row
        assert "nicht" not in row["german"], row


def test_sentences_look_like_sentences() -> None:
    for row in read_all("phrases"):
        for text in row.values():
            assert text[0].isupper() and text[-1] in ".?" and text == text.strip(), row
        assert row["english"][-1] == row["german"][-1], row
        # A comma stands before every dependent clause.
        assert not re.search(r"[^,] (weil|dass) ", row["german"]), row
        assert not re.search(r"\ban? (?=[aeiou])(?<!an )|\ban [^aeiou]", row["english"]), row


def test_german_occurs_once_as_well() -> None:
    texts = [normalized(row["german"]) for row in read_all("phrases")]
    assert len(set(texts)) == len(texts)


def test_the_test_split_combines_words_anew() -> None:
    splits = make_phrases.make_splits()
    trained = {one for pair in splits["train"] for one in pair.combinations}
    assert not any(map(make_phrases.is_held_out, trained))
    new = [pair for pair in splits["test"] if set(pair.combinations) - trained]
    assert len(new) == 129
    assert "129 of\n  the 250 test rows" in readme("phrases")


def test_the_readme_counts_the_word_forms() -> None:
    forms = {
        column: {
            word for row in read_all("phrases") for word in re.findall(r"\w+", row[column].lower())
        }
        for column in ("english", "german")
    }
    counted = f"{len(forms['english'])} English and {len(forms['german'])} German word forms"
    assert counted in readme("phrases")
