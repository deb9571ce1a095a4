"""A file is the old one or the complete new one, never a part."""

import json
from pathlib import Path

import pytest

from peftune import records


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    records.write_text(tmp_path / "notes.md", "Größe\n\n字\n")
    assert (tmp_path / "notes.md").read_bytes() == "Größe\n\n字\n".encode()


def test_json_reads_back_and_stays_readable(tmp_path: Path) -> None:
    value = {"rouge1": {"value": 0.1, "low": 0.0}, "name": "Größe", "rows": [1, None, True]}
    records.write_json(tmp_path / "results.json", value)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Größe" in text
    assert text.endswith("}\n")


def test_every_row_has_one_line(tmp_path: Path) -> None:
    rows = [{"text": "two\nlines"}, {"text": "Größe"}, {}]
    records.write_jsonl(tmp_path / "rows.jsonl", iter(rows))
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows


def test_no_rows_make_an_empty_file(tmp_path: Path) -> None:
    records.write_jsonl(tmp_path / "rows.jsonl", [])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


def test_nothing_is_left_beside_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    records.write_json(path, [1, 2, 3])
    records.write_json(path, [4])
    assert json.loads(path.read_text(encoding="utf-8")) == [4]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interrupted_call", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted_call: str
) -> None:
    """The process stops before the new file is on disk, or just before it gets its name."""
    path = tmp_path / "results.json"
    records.write_text(path, "old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.os, interrupted_call, stop)
        with pytest.raises(KeyboardInterrupt):
            records.write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    records.write_text(path, "newer")
    assert path.read_text(encoding="utf-8") == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    records.write_json(path, {"step": 1})
    with pytest.raises(TypeError):
        records.write_json(path, {"step": {1, 2}})
    assert json.loads(path.read_text(encoding="utf-8")) == {"step": 1}
