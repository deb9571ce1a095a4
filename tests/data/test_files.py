from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from peftune.data.locations import read_named
from peftune.errors import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str, content: bytes) -> list[tuple[int, dict[str, object]]]:
    Path(name).write_bytes(content)
    return [(position, dict(row)) for position, row in read_named([name], "data.train")]


def test_jsonl_rows_keep_their_line_numbers() -> None:
    # U+2028 ends a line for str.splitlines, but not in JSON Lines.
    content = '\ufeff{"a": "x\u2028y"}\r\n\n{"a": [1], "b": null}'.encode()
    assert read("r.jsonl", content) == [(0, {"a": "x\u2028y"}), (2, {"a": [1], "b": None})]


def test_every_csv_value_is_text() -> None:
    content = '\ufeffn,answer\n007,NA\n1e3,"two\nlines, ""quoted"""\n\n,null\n'.encode()
    assert read("r.csv", content) == [
        (0, {"n": "007", "answer": "NA"}),
        (1, {"n": "1e3", "answer": 'two\nlines, "quoted"'}),
        (2, {"n": "", "answer": "null"}),
    ]


def test_long_csv_fields_are_read() -> None:
    assert read("r.csv", b"a\n" + b"x" * 200_000) == [(0, {"a": "x" * 200_000})]


def test_parquet_keeps_column_types() -> None:
    columns = {"a": ["x", None], "n": [1, 2], "refs": [["p", "q"], []]}
    parquet.write_table(pyarrow.table(columns), "r.parquet")
    table = read_named(["r.parquet"], "data.train")
    assert [dict(row) for _, row in table] == [
        {"a": "x", "n": 1, "refs": ["p", "q"]},
        {"a": None, "n": 2, "refs": []},
    ]
    assert table.columns == ("a", "n", "refs")
    assert table.at(1) == "row 2 of r.parquet"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", b"", "data.train: r.jsonl holds no rows."),
        ("r.jsonl", b"\n \n", "data.train: r.jsonl holds no rows."),
        ("r.csv", b"a,b\n", "data.train: r.csv holds no rows."),
        (
            "r.jsonl",
            b'{"a": "x"}\n{"a": "y"\n',
            "data.train: r.jsonl:2: malformed JSON: Expecting ',' delimiter (character 10). Each "
            "line is one object.",
        ),
        (
            "r.jsonl",
            b'["a"]\n',
            "data.train: r.jsonl:1: a line must be a JSON object, this one is a list.",
        ),
        (
            "r.jsonl",
            b'{"a": "x"}\n{"a": "caf\xe9"}\n',
            "data.train: r.jsonl:2: not UTF-8 text (byte 10); save it as UTF-8.",
        ),
        (
            "r.jsonl",
            b"[" * 100_000,
            "data.train: r.jsonl:1: JSON that cannot be read: maximum recursion depth exceeded "
            "while decoding a JSON array from a unicode string.",
        ),
        ("r.csv", b"a\ncaf\xe9\n", "data.train: r.csv: not UTF-8 text (byte 5); save it as UTF-8."),
        (
            "r.csv",
            b"a,b\n1,2\n1,2,3\n",
            "data.train: r.csv:3: 3 values under 2 column names. A value that contains a comma "
            "needs double quotes.",
        ),
        ("r.csv", b"a,b,a\n1,2,3\n", "data.train: r.csv: two columns are named 'a'."),
        (
            "r.csv",
            b'a\n"open\n',
            "data.train: r.csv:2: malformed CSV: unexpected end of data.",
        ),
        (
            "r.doc",
            b"x",
            "data.train: 'r.doc' is not a .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt file.",
        ),
    ],
)
def test_unreadable_files_are_refused(name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(name, content)
    assert str(caught.value) == message


def test_a_file_that_only_claims_to_be_parquet() -> None:
    with pytest.raises(
        DataError, match=r"^data.train: r.parquet: not a readable Parquet file: .*\.$"
    ):
        read("r.parquet", b"not parquet at all")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    for name, hint in (
        ("trian.jsonl", f"The folder {folder} is empty."),
        ("no/train.jsonl", f"The folder {folder / 'no'} does not exist."),
    ):
        with pytest.raises(DataError) as caught:
            read_named([name], "data.train")
        assert str(caught.value) == f"data.train: no such file: {name}. {hint}"


def test_a_missing_file_names_what_was_probably_meant(tmp_path: Path) -> None:
    Path("train.jsonl").touch()
    Path("notes.md").touch()
    with pytest.raises(DataError) as caught:
        read_named(["trian.jsonl"], "data.train")
    assert str(caught.value) == (
        f"data.train: no such file: trian.jsonl. The folder {tmp_path.resolve()} holds: notes.md, "
        "train.jsonl. Did you mean train.jsonl?"
    )
