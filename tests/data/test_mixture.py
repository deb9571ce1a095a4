"""Mixtures: shares, order, and what each row becomes on its way in."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftune.data.mixture import Mixed, mixed_counts
from peftune.data.section import DataSection
from peftune.data.sources import open_splits
from peftune.data.table import Table
from peftune.errors import DataError
from tests.data.loading import load_splits

PROMPT = ("prompt", "completion")


@pytest.fixture(autouse=True)
def sources(write_rows: Any) -> None:
    """30 rows of question and answer, 20 of Alpaca, 10 of SQuAD, and 2 to test on."""
    write_rows("qa.jsonl", *({"q": f"question {n}", "a": f"answer {n}"} for n in range(30)))
    write_rows(
        "alpaca.jsonl",
        *({"instruction": f"task {n}", "input": "", "output": f"done {n}"} for n in range(20)),
    )
    answers = {"text": ["yes"], "answer_start": [0]}
    squad = [{"context": f"yes {n}", "question": "Is it?", "answers": answers} for n in range(10)]
    write_rows("squad.jsonl", *squad)
    write_rows("test.jsonl", *({"d": f"dialogue {n}", "s": f"summary {n}"} for n in range(2)))


QA = {"train": "qa.jsonl", "columns": {"prompt": "q", "completion": "a"}}
ALPACA = {"train": "alpaca.jsonl"}


def mixture(*entries: dict[str, Any], seed: int = 0, **keys: Any) -> Table:
    return open_splits(DataSection(mixture=list(entries), **keys), PROMPT, None, seed)["train"]


def prompts(table: Table) -> list[str]:
    return [row["prompt"] for _, row in table]


def refusal(*entries: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(mixture(*entries, **keys))
    return str(caught.value)


weights = st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 100)), min_size=1, max_size=5)


@given(weights)
def test_shares_follow_the_weights_and_repeat_no_row(sources: list[tuple[int, float]]) -> None:
    available, weights = zip(*sources, strict=True)
    counts = mixed_counts(available, weights)
    total = sum(weights)
    largest = min((n + 1) / (w / total) for n, w in sources)
    assert all(count <= n for count, n in zip(counts, available, strict=True))
    # One more row in all would either repeat a row of some source or change no count.
    assert any(count == n for count, n in zip(counts, available, strict=True))
    for count, weight in zip(counts, weights, strict=True):
        assert math.isclose(count, weight / total * largest, abs_tol=2)


@pytest.mark.parametrize(
    ("available", "weights", "counts"),
    [
        ((100, 100), (1, 1), (100, 100)),
        ((100, 1000), (0.9, 0.1), (100, 11)),
        ((1000, 100), (3, 1), (302, 100)),
        ((7,), (0.3,), (7,)),
    ],
)
def test_counts(
    available: tuple[int, ...], weights: tuple[float, ...], counts: tuple[int, ...]
) -> None:
    assert mixed_counts(available, weights) == counts


def test_every_row_without_weights_and_the_shares_with_them() -> None:
    assert len(mixture(QA, ALPACA)) == 50
    table = mixture({**QA, "weight": 1.0}, {**ALPACA, "weight": 1.0})
    assert isinstance(table.source, Mixed)
    assert table.source.shares == (
        "20 of 30 rows of qa.jsonl",
        "20 of 20 rows of alpaca.jsonl",
    )
    assert len(set(prompts(table))) == len(table) == 40


def test_the_order_is_a_function_of_the_seed() -> None:
    entries = ({**QA, "weight": 1.0}, {**ALPACA, "weight": 2.0})
    first, again, other = (prompts(mixture(*entries, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    # Interleaved: the first half holds rows of both, in the order of their own files.
    own = [int(prompt.split()[1]) for prompt in first if prompt.startswith("task")]
    assert own == sorted(own)
    assert {prompt.split()[0] for prompt in first[:10]} == {"question", "task"}


def test_rows_of_all_formats_become_the_same_roles() -> None:
    table = mixture(QA, ALPACA, {"train": "squad.jsonl"})
    assert not {"q", "a", "instruction", "output"} & set(table.columns)
    rows = {row["prompt"]: row["completion"] for _, row in table}
    assert rows["question 3"] == "answer 3"
    assert rows["task 3"] == "done 3"
    assert rows["Context: yes 3\n\nQuestion: Is it?\n\nAnswer:"] == "yes"


def test_places_lead_back_to_the_source() -> None:
    table = mixture({**QA, "weight": 1.0}, {**ALPACA, "weight": 1.0})
    for position, row in table:
        name, number = row["prompt"].split()
        file = "qa.jsonl" if name == "question" else "alpaca.jsonl"
        assert table.at(position) == f"{file}:{int(number) + 1}"


def test_limits_of_a_source_and_of_the_whole() -> None:
    table = mixture({**QA, "max_samples": 3}, ALPACA)
    assert len(table) == 23
    assert {"question 0", "question 1", "question 2"} < set(prompts(table))
    limited = mixture({**QA, "max_samples": 3}, ALPACA, max_train_samples=5)
    assert prompts(limited) == prompts(table)[:5]
    assert [row for chunk in table.chunks(4) for row in chunk.read()] == list(table)


def test_splits_of_a_folder_and_test_rows_of_their_own_columns(write_rows: Any) -> None:
    write_rows("folder/dev.jsonl", *({"prompt": f"p {n}", "completion": "c"} for n in range(10)))
    section = DataSection(
        mixture=[QA, {"path": "folder", "split": "dev[:40%]"}],
        test="test.jsonl",
        columns={"prompt": "d", "completion": "s"},
    )
    splits = load_splits(section, PROMPT, None, seed=0)
    assert len(splits["train"]) == 34
    assert [example.completion for example in splits["test"]] == ["summary 0", "summary 1"]


def test_a_prompt_template_speaks_of_roles() -> None:
    section = DataSection(
        mixture=[{"train": "test.jsonl", "columns": {"completion": "s", "talk": "d"}}],
        prompt_template="{talk}\nIn short:",
    )
    examples = load_splits(section, PROMPT, None, seed=0)["train"]
    assert {example.prompt for example in examples} == {
        "dialogue 0\nIn short:",
        "dialogue 1\nIn short:",
    }


def test_a_cut_for_validation() -> None:
    section = DataSection(mixture=[QA, ALPACA], validation_fraction=0.2)
    splits = load_splits(section, PROMPT, None, seed=0)
    assert [len(rows) for rows in splits.values()] == [40, 10, 0]


def test_the_fingerprint_follows_seed_weights_and_columns() -> None:
    weighted = [{**QA, "weight": 1.0}, {**ALPACA, "weight": 1.0}]
    marks = {
        mixture(*weighted).fingerprint(),
        mixture(*weighted, seed=1).fingerprint(),
        mixture(QA, ALPACA).fingerprint(),
        mixture({**QA, "columns": {"prompt": "a", "completion": "q"}}, ALPACA).fingerprint(),
    }
    assert len(marks) == 4
    assert mixture(*weighted).fingerprint() in marks


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [QA, {"train": "gone.csv"}],
            "data.mixture.1.train: no such file: gone.csv. The folder {folder} holds: alpaca.jsonl, "
            "qa.jsonl, squad.jsonl, test.jsonl.",
        ),
        (
            [{"path": "./none"}],
            "data.mixture.0.path: no such folder: ./none. The folder {folder} holds: alpaca.jsonl, "
            "qa.jsonl, squad.jsonl, test.jsonl.",
        ),
        (
            [{"path": "qa.jsonl"}],
            "data.mixture.0.path: 'qa.jsonl' is a file; name it in data.mixture.0.train.",
        ),
        (
            [{"train": "qa.jsonl"}],
            "data.mixture.0.columns: qa.jsonl has the columns q, a, and this task needs prompt and "
            "completion, or a format that has them (messages, prompt_completion, alpaca, sharegpt, "
            "squad, parallel). Say which column is which: data.mixture.0.columns: {{prompt: COLUMN, "
            "completion: COLUMN}}, or write the prompt with data.prompt_template.",
        ),
        (
            [{"train": "qa.jsonl", "columns": {"promt": "q"}}],
            "data.mixture.0.columns: unknown role 'promt'. Did you mean prompt? The roles of this "
            "task are: prompt, completion, references.",
        ),
        (
            [{"train": "qa.jsonl", "columns": {"prompt": "q", "completion": "answer"}}],
            "data.mixture.0.columns: completion: no column named 'answer' in qa.jsonl. The columns "
            "are: q, a.",
        ),
        (
            [{"train": "alpaca.jsonl", "format": "squad"}],
            "data.mixture.0.format: squad needs context, question, answers or answer with "
            "answer_start; the columns of alpaca.jsonl are: instruction, input, output.",
        ),
    ],
)
def test_sources_that_cannot_be_mixed(
    entries: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    assert refusal(*entries) == message.format(folder=tmp_path.resolve())
