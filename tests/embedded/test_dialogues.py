"""The shipped data set: made by the committed script, varied, and with splits kept apart."""

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from peftune.data.overlap import normalized
from peftune.data.section import SPLITS, DataSection
from peftune.embedded import embedded_path, make_dialogues
from peftune.embedded.make_dialogues import Row
from tests.conftest import REPOSITORY
from tests.data.loading import load_splits

FOLDER = embedded_path("embedded:dialogues")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    return {
        split: [json.loads(line) for line in (FOLDER / f"{split}.jsonl").open(encoding="utf-8")]
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def rows(splits: dict[str, Rows]) -> Rows:
    return list(itertools.chain(*splits.values()))


def repeated(texts: list[str]) -> list[str]:
    return [text for text, count in Counter(texts).items() if count > 1]


def test_there_are_enough_rows(splits: dict[str, Rows], rows: Rows) -> None:
    assert len(rows) >= 800
    assert {split: len(splits[split]) for split in SPLITS} == make_dialogues.SIZES


def test_every_row_is_a_dialogue_and_a_summary(rows: Rows) -> None:
    for row in rows:
        assert list(row) == ["dialogue", "summary"]
        assert all(text == text.strip() and text for text in row.values())


def test_the_data_loads_under_its_name() -> None:
    """With the check that no test row is also trained on."""
    section = DataSection(path="embedded:dialogues", columns={"completion": "summary"})
    loaded = load_splits(section, ("prompt", "completion"), "{dialogue}\nSummary:", seed=0)
    assert {split: len(loaded[split]) for split in SPLITS} == make_dialogues.SIZES


def test_the_script_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_dialogues, "FOLDER", tmp_path / "dialogues")
    make_dialogues.main()
    made = {file.name: file.read_bytes() for file in (tmp_path / "dialogues").iterdir()}
    assert made == {file.name: file.read_bytes() for file in FOLDER.glob("*.jsonl")}


def test_no_dialogue_occurs_twice(rows: Rows) -> None:
    """Nor, then, a pair with its summary: blind to case, spacing and punctuation, over all splits."""
    assert repeated([normalized(row["dialogue"]) for row in rows]) == []


def test_no_row_rewords_the_facts_of_another() -> None:
    facts = [row.facts for rows in make_dialogues.make_splits().values() for row in rows]
    assert [fact for fact, count in Counter(facts).items() if count > 1] == []


def test_a_row_like_an_earlier_one_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance seldom repeats a row, so here each is followed by a shouted and a reworded copy."""
    draw, waiting = make_dialogues.make_row, []

    def draw_with_copies(rng: random.Random, held_out_words: bool) -> Row:
        if not waiting:
            row = draw(rng, held_out_words)
            shouted = Row(row.dialogue.upper(), row.summary, ("other", *row.facts))
            waiting.extend([Row(f"Well. {row.dialogue}", row.summary, row.facts), shouted, row])
        return waiting.pop()

    monkeypatch.setattr(make_dialogues, "make_row", draw_with_copies)
    made = [row for rows in make_dialogues.make_splits().values() for row in rows]
    assert repeated([normalized(row.dialogue) for row in made]) == []
    assert len({row.facts for row in made}) == len(made)


def test_test_summaries_are_not_those_of_train(splits: dict[str, Rows]) -> None:
    """Measured: 0 of 160 test summaries and 0 of 1,280 summaries stand elsewhere; bound 1 %."""
    trained = {normalized(row["summary"]) for row in splits["train"]}
    known = [row for row in splits["test"] if normalized(row["summary"]) in trained]
    assert len(known) <= 0.01 * len(splits["test"])
    everything = [row["summary"] for split in SPLITS for row in splits[split]]
    assert len(set(everything)) >= 0.99 * len(everything)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_no_test_summary_is_nearly_one_of_train(splits: dict[str, Rows]) -> None:
    """Shared share of words (Jaccard); the nearest pair of all measured 0.75."""
    trained = [words(row["summary"]) for row in splits["train"]]
    for row in splits["test"]:
        own = words(row["summary"])
        assert max(len(own & other) / len(own | other) for other in trained) < 0.8


def test_every_situation_is_in_every_split() -> None:
    """The commonest one measured 6.9 % of train, 7.5 % of test and 13.3 % of validation."""
    for split, rows in make_dialogues.make_splits().items():
        count = Counter(row.facts[0] for row in rows)
        assert set(count) == {scenario.name for scenario in make_dialogues.SCENARIOS}, split
        assert max(count.values()) <= 0.15 * len(rows), split


def test_dialogues_begin_in_many_ways(rows: Rows) -> None:
    """Measured: 1,279 of 1,280 first turns differ."""
    first_turns = {row["dialogue"].splitlines()[0].partition(": ")[2] for row in rows}
    assert len(first_turns) >= 0.8 * len(rows)


def test_no_placeholder_is_left(rows: Rows) -> None:
    left = re.compile(r"[{}\[\]|]|\b(?:An?|an?)_|\b\w+_\w+\b|  ")
    assert [row for row in rows for text in row.values() if left.search(text)] == []


def test_two_people_talk_and_the_summary_is_about_them(rows: Rows) -> None:
    for row in rows:
        turns = [line.partition(": ") for line in row["dialogue"].splitlines()]
        assert len({speaker for speaker, _, _ in turns}) == 2, row
        assert all(said and said[0] == said[0].upper() for _, _, said in turns), row
        assert any(speaker in row["summary"] for speaker, _, _ in turns), row


def test_held_out_names_are_new_to_the_model(splits: dict[str, Rows]) -> None:
    """Training never shows them; validation and test do, so copying must generalise."""
    trained = set(make_dialogues.train_names())
    for split, expected in (("train", 0), ("validation", 36), ("test", 36)):
        new = [row for row in splits[split] if speakers(row) - trained]
        assert len(new) == expected, split
        assert split == "train" or f"{expected} of" in README


def speakers(row: dict[str, str]) -> set[str]:
    return {line.partition(": ")[0] for line in row["dialogue"].splitlines()}


def test_the_readme_has_the_numbers_of_the_files(rows: Rows) -> None:
    for split, size in make_dialogues.SIZES.items():
        assert f"| {split} | `{split}.jsonl` | {size:,} |" in README
    lengths = {
        "turns": [row["dialogue"].count("\n") + 1 for row in rows],
        "words |": [len(row["summary"].split()) for row in rows],
    }
    for unit, counted in lengths.items():
        assert f"{min(counted)} to {max(counted)} {unit}" in README
    talk = [len(row["dialogue"].split()) for row in rows]
    assert f"{min(talk)} to {max(talk)} words |" in README


def test_the_readme_names_script_columns_and_licence(rows: Rows) -> None:
    (script,) = re.findall(r"^    python (\S+)$", README, re.MULTILINE)
    assert REPOSITORY / script == Path(make_dialogues.__file__)
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(rows[0])
    assert f"one of {len(make_dialogues.SCENARIOS)} everyday\nsituations" in README
    assert "licence is Apache-2.0" in README and "license: apache-2.0" in README
