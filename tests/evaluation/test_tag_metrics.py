"""Scores of tags agree with seqeval, and what stands for an entity is as documented."""

import random

import pytest
from seqeval.metrics import accuracy_score, classification_report

from peftune.evaluation.tag_metrics import entity_tags, tag_results, tagged_text

WANTED = [
    ["O", "B-PER", "I-PER", "O", "B-LOC"],
    ["B-LOC", "O", "O"],
    ["O", "O"],
    ["B-PER", "B-PER", "I-LOC"],
] * 3


def guessed(seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG"]
    return [[tag if draw.random() < 0.6 else draw.choice(tags) for tag in row] for row in WANTED]


@pytest.mark.parametrize("seed", range(5))
def test_the_numbers_are_those_of_seqeval(seed: int) -> None:
    found = guessed(seed)
    report = classification_report(WANTED, found, output_dict=True, zero_division=0)
    results = tag_results(found, WANTED, seed)
    values = {name: result["value"] for name, result in results.items()}
    assert values == pytest.approx(
        {
            "precision": report["micro avg"]["precision"],
            "recall": report["micro avg"]["recall"],
            "f1": report["micro avg"]["f1-score"],
            "accuracy": accuracy_score(WANTED, found),
            "f1_LOC": report["LOC"]["f1-score"],
            "f1_PER": report["PER"]["f1-score"],
        }
    )
    for result in results.values():
        assert result["low"] <= result["value"] <= result["high"]
    assert results["f1"]["low"] < results["f1"]["high"]


def test_both_models_have_the_same_measures() -> None:
    """Also where one of them finds a type that no reference has, or nothing at all."""
    nothing = [["O"] * len(row) for row in WANTED]
    base, adapted = tag_results(nothing, WANTED, 0), tag_results(guessed(0), WANTED, 0)
    assert base.keys() == adapted.keys()
    assert base["f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert tag_results(nothing, nothing, 0)["f1"]["value"] == 0.0


def test_the_last_word_of_an_entity_may_be_marked() -> None:
    """IOBES and BILOU differ in two letters."""
    wanted = [["B-PER", "E-PER", "S-LOC", "O"]]
    bilou = [["B-PER", "L-PER", "U-LOC", "O"]]
    assert tag_results(bilou, bilou, 0) == tag_results(wanted, wanted, 0)
    half = [["B-PER", "O", "U-LOC", "O"]]
    assert tag_results(half, bilou, 0)["precision"]["value"] == 0.5


def test_plain_names_with_words_outside_are_entities_by_runs() -> None:
    """`ORG` would read as a word outside, and `BAD` as a beginning."""
    wanted = [["ORG", "ORG", "O", "BAD"]]
    assert entity_tags({"ORG", "O", "BAD"}) == {"ORG": "I-ORG", "O": "O", "BAD": "I-BAD"}
    assert tag_results([["ORG", "O", "O", "BAD"]], wanted, 0)["f1"]["value"] == 0.5


def test_plain_names_without_words_outside_count_word_by_word() -> None:
    wanted, found = [["NOUN", "NOUN", "VERB", "DET"]], [["NOUN", "VERB", "VERB", "DET"]]
    results = tag_results(found, wanted, 0)
    assert {results[name]["value"] for name in ("precision", "recall", "f1", "accuracy")} == {0.75}
    assert results["f1_VERB"]["value"] == pytest.approx(2 / 3)


def test_words_are_shown_with_their_tags() -> None:
    assert tagged_text(["Tom", "saw", "Ulm"], ["B-PER", "O", "B-LOC"]) == "Tom/B-PER saw Ulm/B-LOC"
