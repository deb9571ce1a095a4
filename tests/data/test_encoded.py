"""Splits as tokens on disk: the same rows however they were made, and never another recipe's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from peftune.data import encoded
from peftune.data.encoded import EncodedSplit, SplitJob, encode_split
from peftune.data.encoders import ENCODERS, Encoding
from peftune.data.examples import Reading
from peftune.data.ledger import column_of, values_of
from peftune.data.section import DataSection
from peftune.data.sources import open_splits
from peftune.errors import DataError

PROMPT = ("prompt", "completion")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoded, "SHARD_ROWS", 4)
    return tmp_path / "cache"


def row(number: int) -> dict[str, str]:
    return {"prompt": f"question {number}", "completion": f"answer {number} " * (number % 3 + 1)}


def encode(tokenizer: Any, **keys: Any) -> EncodedSplit:
    section = DataSection(train="t.jsonl", **keys)
    [table] = open_splits(section, PROMPT, None, seed=0).values()
    job = SplitJob(
        Reading(section, PROMPT, None), Encoding(tokenizer, section, "causal"), table.key
    )
    return encode_split(table, job, "train", shows=False)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of the encoder gets."""
    calls: list[int] = []
    real = ENCODERS["causal"]

    def counting(examples: Any, job: Encoding) -> Any:
        calls.append(len(examples))
        return real(examples, job)

    monkeypatch.setitem(ENCODERS, "causal", counting)
    return calls


def test_rows_come_back_as_they_were_encoded(tokenizer: Any, write_rows: Any) -> None:
    write_rows("t.jsonl", *map(row, range(10)))
    split = encode(tokenizer)
    section = DataSection(train="t.jsonl")
    table = open_splits(section, PROMPT, None, seed=0)["train"]
    from peftune.data.examples import read_rows

    examples, _ = read_rows(table, Reading(section, PROMPT, None), "data.train")
    outcomes = ENCODERS["causal"](examples, Encoding(tokenizer, section, "causal"))
    assert list(split.rows) == [one for outcome in outcomes for one in outcome.rows]
    assert split.rows[-1] == split.rows[9] and split.rows[2:4] == [split.rows[2], split.rows[3]]
    with pytest.raises(IndexError):
        split.rows[10]
    assert split.ledger["row"].tolist() == list(range(10))


def test_a_choice_of_rows(tokenizer: Any, write_rows: Any) -> None:
    write_rows("t.jsonl", *map(row, range(10)))
    rows = encode(tokenizer).rows
    chosen = rows.select(np.arange(10) % 4 == 1)
    assert [one.row for one in chosen] == [1, 5, 9]
    assert chosen.select(np.array([False, True, True])).sources().tolist() == [5, 9]


def test_a_second_run_encodes_nothing(
    tokenizer: Any, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("t.jsonl", *map(row, range(10)))
    calls = counted(monkeypatch)
    first = list(encode(tokenizer).rows)
    assert sum(calls) == 10
    assert list(encode(tokenizer).rows) == first
    assert sum(calls) == 10


def test_an_interrupted_preparation_goes_on(
    tokenizer: Any, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("t.jsonl", *map(row, range(10)))
    whole = list(encode(tokenizer, max_length=64).rows)
    real, calls = ENCODERS["causal"], []

    def failing(examples: Any, job: Encoding) -> Any:
        calls.append(len(examples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(examples, job)

    monkeypatch.setitem(ENCODERS, "causal", failing)
    with pytest.raises(KeyboardInterrupt):
        encode(tokenizer, max_length=65)
    assert list(encode(tokenizer, max_length=65).rows) == whole
    assert calls == [4, 4, 2, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"max_length": 512},
        lambda: {"prompt_template": "Q: {prompt}"},
        lambda: Path("t.jsonl").write_text(
            Path("t.jsonl").read_text() + json.dumps(row(77)) + "\n"
        ),
    ],
    ids=["a key", "the prompt", "the file"],
)
def test_whatever_changes_the_tokens_changes_their_name(
    change: Any, tokenizer: Any, write_rows: Any
) -> None:
    write_rows("t.jsonl", *map(row, range(5)))
    before = encode(tokenizer).folder
    assert encode(tokenizer).folder == before
    changed = change()
    assert encode(tokenizer, **(changed if isinstance(changed, dict) else {})).folder != before


def test_another_tokenizer_and_another_template_have_their_own_tokens(
    tokenizer: Any, chat_tokenizer: Any, write_rows: Any
) -> None:
    write_rows("t.jsonl", *map(row, range(5)))
    plain = encode(chat_tokenizer)
    chat = encode(chat_tokenizer, chat_template="tokenizer")
    assert len({plain.folder, chat.folder, encode(tokenizer).folder}) == 3


def test_a_call_with_truncation_leaves_the_name_alone(tokenizer: Any, write_rows: Any) -> None:
    """A fast tokenizer remembers the last call's truncation."""
    write_rows("t.jsonl", *map(row, range(5)))
    before = encode(tokenizer).folder
    tokenizer(["some words"], truncation=True, max_length=1)
    assert encode(tokenizer).folder == before


def test_processes_make_the_same_shards(
    tokenizer: Any, write_rows: Any, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    write_rows("t.jsonl", *map(row, range(9)), {"prompt": "q", "completion": " "})
    alone = encode(tokenizer)
    files = {file.name: file.read_bytes() for file in alone.folder.glob("*.arrow")}
    for file in alone.folder.iterdir():
        file.unlink()
    monkeypatch.setattr(encoded, "WORTH_A_POOL", 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    together = encode(tokenizer)
    assert {file.name: file.read_bytes() for file in together.folder.glob("*.arrow")} == files
    assert together.problems == alone.problems
    [(problem, count)] = together.problems
    assert (problem.row, count) == (9, 1)
    assert "is blank" in problem.text


def test_what_cannot_be_read_at_all_leaves_no_manifest(
    tokenizer: Any, write_rows: Any, own_cache: Path
) -> None:
    write_rows("t.jsonl", *map(row, range(3)))
    with Path("t.jsonl").open("a") as file:
        file.write("{half a row\n")
    with pytest.raises(DataError, match="malformed JSON"):
        encode(tokenizer)
    assert not list(own_cache.rglob("manifest.json"))


def test_a_cache_that_cannot_be_written_to(
    tokenizer: Any, write_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows("t.jsonl", row(1))
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "taken"))
    with pytest.raises(DataError) as caught:
        encode(tokenizer)
    assert str(caught.value) == (
        f"PEFTUNE_CACHE: tokens cannot be kept in {tmp_path / 'taken'} (Not a directory); set this "
        "environment variable to a folder that can be written to."
    )


def test_columns_of_a_ledger_are_read_as_arrow_means_them() -> None:
    columns = {
        "row": pa.array([3, 1, 2, 9], pa.int64()),
        "changed": pa.array([True, False, False, True]),
        "whole": pa.array([2**64 - 1, 0, 5, 7], pa.uint64()),
        "fault": pa.array([-1, 2, -1, 0], pa.int8()),
        "reason": pa.array([None, "so", None, "x"]),
    }
    for column in columns.values():
        for part in (column, column.slice(1, 2), column.slice(4)):
            assert values_of(part).tolist() == part.to_pylist()
            if part.type != pa.string():
                assert column_of(values_of(part)).equals(part)
