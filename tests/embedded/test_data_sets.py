"""The shipped data sets beside the dialogues: made by their scripts, splits apart, described truly."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from peftune.data.overlap import normalized
from peftune.data.section import SPLITS, DataSection
from peftune.embedded import embedded_path, make_passages, make_phrases, make_requests
from peftune.tasks import TASKS
from tests.conftest import REPOSITORY
from tests.data.loading import load_splits

# Data set to its script, the task of its recipe, and the column that is asked.
SETS: dict[str, tuple[ModuleType, str, str]] = {
    "requests": (make_requests, "classify", "text"),
    "phrases": (make_phrases, "translate", "english"),
    "passages": (make_passages, "qa", "context"),
}
COLUMNS = {
    "requests": {},
    "phrases": {"prompt": "english", "completion": "german"},
    "passages": {"completion": "answer"},
}
TEMPLATES = {"passages": "{context}\n\n{question}"}
Rows = list[dict[str, Any]]


def read(name: str, split: str) -> Rows:
    file = embedded_path(f"embedded:{name}") / f"{split}.jsonl"
    return [json.loads(line) for line in file.open(encoding="utf-8")]


def read_all(name: str) -> Rows:
    return list(itertools.chain.from_iterable(read(name, split) for split in SPLITS))


def readme(name: str) -> str:
    return (embedded_path(f"embedded:{name}") / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SETS)
def test_the_script_makes_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, *_ = SETS[name]
    monkeypatch.setattr(script, "FOLDER", tmp_path / name)
    script.main()
    made = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
    shipped = embedded_path(f"embedded:{name}").glob("*.jsonl")
    assert made == {file.name: file.read_bytes() for file in shipped}
    assert sum(map(len, made.values())) < 500_000


@pytest.mark.parametrize("name", SETS)
def test_the_data_loads_for_its_task(name: str) -> None:
    """With the check that no test row is also trained on."""
    script, task, _ = SETS[name]
    section = DataSection(
        path=f"embedded:{name}", columns=COLUMNS[name], prompt_template=TEMPLATES.get(name)
    )
    loaded = load_splits(section, TASKS[task].roles, TASKS[task].prompt_template, seed=0)
    assert {split: len(loaded[split]) for split in SPLITS} == script.SIZES


@pytest.mark.parametrize("name", SETS)
def test_nothing_occurs_twice(name: str) -> None:
    """Blind to case, spacing and punctuation, over all splits."""
    asked = SETS[name][2]
    count = Counter(normalized(row[asked]) for row in read_all(name))
    assert [text for text, times in count.items() if times > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_no_placeholder_is_left(name: str) -> None:
    left = re.compile(r"[{}\[\]|]|\b\w+_\w+\b|  | [.,?!]")
    asked = SETS[name][2]
    assert [row for row in read_all(name) if left.search(row[asked])] == []


@pytest.mark.parametrize("name", SETS)
def test_the_readme_tells_script_files_columns_and_licence(name: str) -> None:
    script, text = SETS[name][0], readme(name)
    (path,) = re.findall(r"^    python (\S+)$", text, re.MULTILINE)
    assert REPOSITORY / path == Path(str(script.__file__))
    for split, size in script.SIZES.items():
        assert f"| {split} | `{split}.jsonl` | {size:,} |" in text
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(read(name, "train")[0])
    assert "licence is Apache-2.0" in text and "license: apache-2.0" in text


def lengths(name: str, column: str) -> str:
    counted = [len(row[column].split()) for row in read_all(name)]
    return f"{min(counted)} to {max(counted)} words"


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("requests", "text"),
        ("phrases", "english"),
        ("phrases", "german"),
        ("passages", "context"),
        ("passages", "answer"),
    ],
)
def test_the_readme_tells_the_lengths(name: str, column: str) -> None:
    (line,) = re.findall(rf"^\| `{column}` \|.*$", readme(name), re.MULTILINE)
    assert lengths(name, column) in line


# Requests.


def test_every_label_is_in_every_split() -> None:
    for split in SPLITS:
        count = Counter(row["label"] for row in read("requests", split))
        assert set(count) == set(make_requests.REQUESTS), split
        assert max(count.values()) <= 0.2 * sum(count.values()), split
    assert f"one of {len(make_requests.REQUESTS)} names" in readme("requests")


def test_training_does_not_show_every_wording() -> None:
    splits = make_requests.make_splits()
    new = {split: sum(row.new_wording for row in rows) for split, rows in splits.items()}
    assert new == {"train": 0, "validation": 18, "test": 26}
    assert "18 of the 150 validation rows and 26 of\n  the 300 test rows" in readme("requests")


def test_no_single_word_gives_a_label_away() -> None:
    """The best word for each label, learnt on train, decides at most half of the test rows."""
    found: dict[str, Counter[str]] = {}
    for row in read("requests", "train"):
        for word in set(re.findall(r"\w+", row["text"].lower())):
            found.setdefault(word, Counter())[row["label"]] += 1
    # Words that decide: seen often, and nearly always with one label.
    sure = {
        word: count.most_common(1)[0][0]
        for word, count in found.items()
        if count.total() >= 60 and max(count.values()) / count.total() > 0.95
    }
    decided = [
        row
        for row in read("requests", "test")
        if set(re.findall(r"\w+", row["text"].lower())) & sure.keys()
    ]
    assert len(decided) <= 0.5 * len(read("requests", "test"))


# Passages.


def test_answers_stand_in_their_context_once_and_where_squad_says() -> None:
    for row in read_all("passages"):
        context, answer = row["context"], row["answer"]
        assert make_passages.occurrences(answer, context) == context.count(answer) == 1
        assert row["answers"]["text"] == [answer]
        (start,) = row["answers"]["answer_start"]
        assert context[start : start + len(answer)] == answer


def test_questions_are_often_undecided_without_the_names() -> None:
    """In two sentences of one kind only the question's own words tell the right one."""
    facts = [make_passages.draw_facts(make_passages.random.Random(n), 3, True) for n in range(300)]
    alike = [told for told in facts if len({id(one.fact) for one in told}) < 3]
    assert len(alike) > 0.5 * len(facts)
    for told in alike:
        kinds = Counter(id(one.fact) for one in told)
        twins = [one for one in told if kinds[id(one.fact)] > 1]
        assert not set.intersection(*(one.values() for one in twins))


def test_some_answers_are_new_to_training() -> None:
    trained = " ".join(row["context"] for row in read("passages", "train"))
    for split, expected in (("validation", 12), ("test", 20)):
        rows = read("passages", split)
        new = [row for row in rows if not make_passages.occurrences(row["answer"], trained)]
        assert len(new) == expected
        assert f"{expected} of the" in readme("passages")
    assert f"one of {len(make_passages.FACTS)}\nkinds of facts" in readme("passages")
