"""What every kind of file promises as a table: read anew each time, in pieces, and never held."""

import gzip
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import ipc, parquet

from peftune.data.locations import read_named
from peftune.data.table import MisformedRow, Row, RowProblem, Table

Rows = list[dict[str, str]]
ROWS: Rows = [{"text": f"row {number}", "b": str(number)} for number in range(23)]


def jsonl(rows: Rows) -> bytes:
    # Blank lines have numbers, but are no rows.
    return b"\xef\xbb\xbf\n" + b"".join(json.dumps(row).encode() + b"\n\n" for row in rows)


def delimited(rows: Rows, delimiter: str) -> bytes:
    return "\n".join(map(delimiter.join, [["text", "b"], *(row.values() for row in rows)])).encode()


def arrow(path: Path, opening: Callable[..., Any]) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with opening(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


def write_every_kind() -> list[str]:
    contents = {
        "r.jsonl": jsonl(ROWS),
        "r.jsonl.gz": gzip.compress(jsonl(ROWS)),
        "r.json": json.dumps(ROWS).encode(),
        "nested.json": json.dumps({"version": 1, "data": ROWS}).encode(),
        "r.csv": delimited(ROWS, ","),
        "r.tsv": delimited(ROWS, "\t"),
    }
    for name, content in contents.items():
        Path(name).write_bytes(content)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), "r.parquet", row_group_size=10)
    arrow(Path("stream.arrow"), ipc.new_stream)
    arrow(Path("file.arrow"), ipc.new_file)
    return [*contents, "r.parquet", "stream.arrow", "file.arrow"]


KINDS = [
    *("r.jsonl", "r.jsonl.gz", "r.json", "nested.json", "r.csv", "r.tsv", "r.parquet"),
    *("stream.arrow", "file.arrow"),
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_every_kind() == KINDS


def contents(table: Table) -> list[Row]:
    return [dict(row) for _, row in table]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_again_and_again(kind: str) -> None:
    table = read_named([kind], "data.train")
    assert contents(table) == contents(table) == ROWS
    assert (len(table), table.columns, table.all_columns) == (23, ("text", "b"), ("text", "b"))


@pytest.mark.parametrize("size", [1, 4, 10, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_up_the_table_wherever_it_is_cut(kind: str, size: int) -> None:
    whole = (
        read_named([kind, "r.csv"], "data.train") if kind != "r.csv" else read_named([kind], "k")
    )
    rows = list(whole)
    for start, stop in ((0, None), (3, 17), (9, 10), (5, 5), (20, 40)):
        table: Table = pickle.loads(pickle.dumps(whole.cut(start, stop)))
        pieces = [list(pickle.loads(pickle.dumps(chunk)).read()) for chunk in table.chunks(size)]
        assert all(0 < len(piece) <= size for piece in pieces)
        assert [row for piece in pieces for row in piece] == list(table) == rows[start:stop]
        assert len(table) == len(rows[start:stop])


def test_a_cut_of_a_cut_and_a_limit() -> None:
    table = read_named(["r.csv"], "data.train").cut(5, 15)
    assert [position for position, _ in table.cut(2, 4)] == [7, 8]
    assert [position for position, _ in table.cut(8, 99)] == [13, 14]
    assert len(table.limited(3)) == 3
    assert table.limited(None) == table


def test_selected_rows_keep_their_places() -> None:
    table = read_named(["r.jsonl"], "data.train").select([1, 5])
    assert contents(table) == [ROWS[0], ROWS[2]]
    assert [table.at(position) for position, _ in table] == ["r.jsonl:2", "r.jsonl:6"]
    assert len(table) == 2 and [list(chunk.read()) for chunk in table.chunks(9)] == [list(table)]


def test_places_in_several_files() -> None:
    table = read_named(["r.jsonl", "r.csv", "r.jsonl.gz"], "data.train")
    places = {row["b"] + str(i // 23): table.at(at) for i, (at, row) in enumerate(table)}
    assert (places["00"], places["221"], places["12"]) == (
        "r.jsonl:2",
        "row 23 of r.csv",
        "r.jsonl.gz:4",
    )
    assert table.place == "r.jsonl and 2 more files"


def test_columns_that_come_late_are_found_when_they_are_asked_for() -> None:
    Path("late.jsonl").write_text('{"a": 1}\n' * 1000 + '{"z": 1}\n')
    table = read_named(["late.jsonl"], "data.train")
    assert (table.columns, table.all_columns) == (("a",), ("a", "z"))


def test_a_long_file_is_never_held() -> None:
    line = json.dumps({"text": "x" * 400}) + "\n"
    Path("long.jsonl").write_text(line * 20_000)
    table = read_named(["long.jsonl"], "data.train")
    tracemalloc.start()
    assert sum(1 for _ in table) == len(table) == 20_000
    assert sum(chunk.piece.count for chunk in table.chunks(1000)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < Path("long.jsonl").stat().st_size


def test_the_fingerprint_follows_content_range_and_format_but_not_the_path() -> None:
    Path("copy.jsonl").write_bytes(Path("r.jsonl").read_bytes())
    Path("other.jsonl").write_bytes(jsonl(ROWS[:-1]))
    table = read_named(["r.jsonl"], "data.train")
    assert read_named(["copy.jsonl"], "data.test").fingerprint() == table.fingerprint()
    others = [
        read_named(["other.jsonl"], "data.train"),
        read_named(["r.jsonl", "copy.jsonl"], "data.train"),
        table.limited(5),
        table.cut(1, None),
        table.select([1]),
        table.converted(shouting),
        table.converted(shouting, "{text}"),
    ]
    marks = {one.fingerprint() for one in (table, *others)}
    assert len(marks) == 1 + len(others)


def shouting(row: Row) -> Row:
    if row["b"] in ("7", "9"):
        raise RowProblem("column 'b' is too quiet")
    return {"text": row["text"].upper()}


def test_rows_without_the_form_of_their_format_say_why() -> None:
    table = read_named(["r.jsonl"], "data.train").converted(shouting)
    rows = [row for _, row in table]
    assert rows[6] == {"text": "ROW 6"}
    problems = {i: row.problem for i, row in enumerate(rows) if isinstance(row, MisformedRow)}
    assert problems == dict.fromkeys((7, 9), "column 'b' is too quiet")
    assert [row for chunk in table.chunks(4) for _, row in chunk.read()] == rows


@pytest.mark.parametrize("kind", ["parquet", "arrow", "saved"])
def test_label_numbers_become_names(kind: str) -> None:
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B"])),
        }
    )
    rows = datasets.Dataset.from_dict({"label": [1, 0], "tags": [[0, 1], []]}, features=features)
    if kind == "parquet":
        rows.to_parquet("named.parquet")
    else:
        rows.save_to_disk("saved")
    path = "named.parquet" if kind == "parquet" else "saved/data-00000-of-00001.arrow"
    assert contents(read_named([path], "data.train")) == [
        {"label": "yes", "tags": ["O", "B"]},
        {"label": "no", "tags": []},
    ]


def test_text_is_a_row_for_each_line_that_is_not_blank() -> None:
    Path("t.txt").write_bytes(b"\xef\xbb\xbfOnce.\r\n\n  Twice. \n")
    table = read_named(["t.txt"], "data.train")
    assert list(table) == [(0, {"text": "Once."}), (2, {"text": "  Twice. "})]
    assert table.at(2) == "t.txt:3"


def test_squad_articles_become_a_row_for_each_question() -> None:
    questions = [{"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}]
    articles = [{"title": "A", "paragraphs": [{"context": "Ada sat.", "qas": questions}]}]
    Path("s.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    assert contents(read_named(["s.json"], "data.train")) == [
        {"context": "Ada sat.", **questions[0]}
    ]
