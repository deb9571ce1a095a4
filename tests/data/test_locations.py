"""What the recipe's paths stand for: lists, globs, compressed files and other machines."""

import gzip
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from peftune.data.locations import read_named
from peftune.errors import DataError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    for number in (2, 10, 1):
        Path(f"part-{number:02}.jsonl").write_text(f'{{"n": {number}}}\n')


@pytest.fixture
def memory() -> Any:
    """A file system that is remote in every respect but the distance."""
    system = fsspec.filesystem("memory")
    for number in (2, 1):
        system.pipe(f"/bucket/part-{number}.jsonl", f'{{"n": {number}}}\n'.encode())
    yield system
    system.rm("/bucket", recursive=True)


def numbers(*names: str, streaming: bool = False) -> list[int]:
    return [row["n"] for _, row in read_named(names, "data.train", streaming)]


def refusal(*names: str) -> str:
    with pytest.raises(DataError) as caught:
        list(read_named(names, "data.train"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["part-10.jsonl", "part-02.jsonl"], [10, 2]),
        (["part-*.jsonl"], [1, 2, 10]),
        (["part-0?.jsonl", "part-10.jsonl"], [1, 2, 10]),
        (["**/part-1*.jsonl"], [10]),
        (["file://{folder}/part-10.jsonl"], [10]),
    ],
)
def test_several_files_in_their_order(
    names: Sequence[str], expected: list[int], tmp_path: Path
) -> None:
    assert numbers(*(name.format(folder=tmp_path) for name in names)) == expected


def test_a_file_whose_name_looks_like_a_glob() -> None:
    Path("part-[1].jsonl").write_text('{"n": 7}\n')
    assert numbers("part-[1].jsonl") == [7]


@pytest.mark.parametrize("streaming", [False, True])
def test_remote_files(streaming: bool, memory: Any) -> None:
    assert numbers("memory://bucket/part-2.jsonl", streaming=streaming) == [2]
    assert numbers("memory://bucket/*.jsonl", "part-10.jsonl", streaming=streaming) == [1, 2, 10]
    table = read_named(["memory://bucket/part-2.jsonl"], "data.train", streaming)
    assert table.place == "memory://bucket/part-2.jsonl"
    assert table.at(0) == "memory://bucket/part-2.jsonl:1"


def test_a_remote_file_is_copied_once_for_each_state_of_it(memory: Any, tmp_path: Path) -> None:
    name = "memory://bucket/part-2.jsonl"
    assert numbers(name) == numbers(name) == [2]
    copies = list((tmp_path / "cache").rglob("*.jsonl"))
    assert len(copies) == 1
    first = read_named([name], "data.train").fingerprint()
    memory.pipe("/bucket/part-2.jsonl", b'{"n": 5}\n{"n": 6}\n')
    assert numbers(name) == [5, 6]
    assert read_named([name], "data.train").fingerprint() != first


def test_a_stream_leaves_no_copy_and_its_fingerprint_follows_the_file(
    memory: Any, tmp_path: Path
) -> None:
    name = "memory://bucket/part-2.jsonl"
    first = read_named([name], "data.train", streaming=True).fingerprint()
    memory.pipe("/bucket/part-2.jsonl", b'{"n": 5}\n{"n": 6}\n')
    assert read_named([name], "data.train", streaming=True).fingerprint() != first
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed_files(ending: str, compress: Any, memory: Any) -> None:
    content = compress(b'{"n": 3}\n')
    Path(f"c.jsonl.{ending}").write_bytes(content)
    memory.pipe(f"/bucket/c.jsonl.{ending}", content)
    assert numbers(f"c.jsonl.{ending}") == [3]
    assert numbers(f"memory://bucket/c.jsonl.{ending}", streaming=True) == [3]


FOLDER = "The folder {folder} holds: part-01.jsonl, part-02.jsonl, part-10.jsonl."


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["shards-*.jsonl"], f"data.train: no file matches shards-*.jsonl. {FOLDER}"),
        (
            ["shards/*.jsonl"],
            "data.train: no file matches shards/*.jsonl. The folder {folder}/shards does not exist.",
        ),
        (
            ["part-03.jsonl"],
            f"data.train: no such file: part-03.jsonl. {FOLDER} Did you mean part-10.jsonl?",
        ),
        (["part-01.jsonl", "*1.jsonl"], "data.train: the file part-01.jsonl is named twice."),
        (
            ["{folder}"],
            "data.train: '{folder}' is a folder; write {folder}/*.jsonl for files in it, or name a "
            "folder with train, validation and test files in data.path.",
        ),
        (
            ["s3://bucket/a.jsonl"],
            "data.train: s3://bucket/a.jsonl: a package for s3:// is missing: Install s3fs to access "
            "S3.",
        ),
        (
            ["gs://bucket/*.parquet"],
            "data.train: gs://bucket/*.parquet: a package for gs:// is missing: Please install gcsfs "
            "to access Google Storage.",
        ),
        (
            ["memry://bucket/a.jsonl"],
            "data.train: memry://bucket/a.jsonl: unknown protocol 'memry'. Did you mean memory?",
        ),
        (
            ["memory://bucket/none.jsonl"],
            "data.train: no such file: memory://bucket/none.jsonl.",
        ),
        (
            ["memory://bucket/none-*.jsonl"],
            "data.train: no file matches memory://bucket/none-*.jsonl.",
        ),
        (
            ["rows.parquet.gz"],
            "data.train: 'rows.parquet.gz': .parquet files are compressed inside; unpack it.",
        ),
    ],
)
def test_names_without_rows(names: list[str], message: str, tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    if names == ["rows.parquet.gz"]:
        Path("rows.parquet.gz").touch()
    typed = [name.format(folder=folder) for name in names]
    assert refusal(*typed) == message.format(folder=folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "c.jsonl.gz",
            b"no gzip",
            "data.train: c.jsonl.gz: cannot be read: Not a gzipped file (b'no').",
        ),
        (
            "c.jsonl.gz",
            gzip.compress(b'{"n": 3}\n', mtime=0)[:-6],
            "data.train: c.jsonl.gz: cannot be read: Compressed file ended before the end-of-stream "
            "marker was reached.",
        ),
        (
            "c.json",
            b'{"n": 1}\n{"n": 2}\n',
            "data.train: c.json:2: malformed JSON: Extra data (character 1). One object a line is JSON "
            "Lines: call the file .jsonl.",
        ),
        (
            "c.json",
            b'[{"n": 1},\n x]',
            "data.train: c.json:2: malformed JSON: Expecting value (character 2).",
        ),
        (
            "c.json",
            b'[{"n": 1}, 2]',
            "data.train: c.json: the list must hold objects, not a number.",
        ),
        (
            "c.json",
            b'{"n": 1}',
            "data.train: c.json: must be a list of objects (or an object whose `data` is one), this is "
            "an object. One object a line is JSON Lines: call the file .jsonl.",
        ),
        ("c.json", b"[]", "data.train: c.json holds no rows."),
        ("c.json", b'["\xff"]', "data.train: c.json: not UTF-8 text (byte 2); save it as UTF-8."),
        (
            "c.json",
            b"[" * 100_000,
            "data.train: c.json: JSON that cannot be read: maximum recursion depth exceeded while "
            "decoding a JSON array from a unicode string.",
        ),
        (
            "c.tsv",
            b"a\tb\n1\t2\t3\n",
            "data.train: c.tsv:2: 3 values under 2 column names. A value that contains a tab needs "
            "double quotes.",
        ),
        (
            "c.tsv",
            b'a\tb\n"1" x\t2\n',
            "data.train: c.tsv:2: malformed TSV: '\\t' expected after '\"'.",
        ),
        ("c.txt", b"\n \n", "data.train: c.txt holds no rows."),
        ("c.txt", b"a\n\xff\n", "data.train: c.txt:2: not UTF-8 text (byte 0); save it as UTF-8."),
    ],
)
def test_unreadable_content(name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    assert refusal(name) == message


def test_a_file_that_only_claims_to_be_arrow() -> None:
    Path("c.arrow").write_bytes(b"no arrow at all, but long enough to be one")
    message = refusal("c.arrow")
    assert message.startswith("data.train: c.arrow: not a readable Arrow file: ")
    assert "\n" not in message
