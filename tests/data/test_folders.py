"""Splits in a local folder: single files, shards, subfolders, and what `datasets` saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from peftune.data.folders import FolderSplits
from peftune.errors import DataError


def rows(*numbers: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"n": list(numbers)})


def single_files(write: Any) -> None:
    write("d/train.jsonl", {"n": 1})
    write("d/dev.jsonl", {"n": 2})
    write("d/README.md", "# no rows")


def shards(write: Any) -> None:
    for number in (1, 0):
        write(f"d/train-{number:05}-of-00002.jsonl", {"n": number + 1})
    write("d/dev-00000-of-00001-8f2a.jsonl", {"n": 2})


def hub_layout(write: Any) -> None:
    write("d/data/train-00000-of-00001.jsonl", {"n": 1})
    write("d/data/dev.jsonl", {"n": 2})
    write("d/dataset_infos.json", {})


def subfolders(write: Any) -> None:
    for name, number in (("train/b", 2), ("train/a", 1), ("dev/x", 2)):
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        write(f"d/{name}.jsonl", {"n": number})


def saved_to_disk(write: Any) -> None:
    saved = datasets.DatasetDict(train=rows(1, 2), dev=rows(2))
    saved.save_to_disk("d", num_shards={"train": 2, "dev": 1})


@pytest.fixture(autouse=True)
def write(write_rows: Any) -> Any:
    Path("d").mkdir()
    return write_rows


def folder() -> FolderSplits:
    return FolderSplits("data.path", "d", Path("d"))


@pytest.mark.parametrize(
    ("layout", "train"),
    [
        (single_files, [1]),
        (shards, [1, 2]),
        (hub_layout, [1]),
        (subfolders, [1, 2]),
        (saved_to_disk, [1, 2]),
    ],
)
def test_layouts(layout: Callable[[Any], None], train: list[int], write: Any) -> None:
    layout(write)
    splits = folder()
    assert {"train", "dev"} == set(splits.names)
    assert [row["n"] for _, row in splits.table("train")] == train
    assert [row["n"] for _, row in splits.table("dev")] == [2]


def test_one_saved_data_set_is_the_train_split() -> None:
    rows(4, 5).save_to_disk("d")
    assert folder().names == ("train",)
    assert [row["n"] for _, row in folder().table("train")] == [4, 5]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train-00000-of-00003", "train-00002-of-00003"],
            "data.path: 'd' holds 2 files like train-00000-of-00003.jsonl, which says that there "
            "should be another number of them; complete them, or name the files in data.train.",
        ),
        (
            ["train", "train-00000-of-00001"],
            "data.path: 'd' holds train-00000-of-00001.jsonl and train.jsonl; keep one of them.",
        ),
        (
            ["train", "data/train"],
            "data.path: 'd' holds train.jsonl and data/train.jsonl; keep one of them.",
        ),
    ],
)
def test_files_that_leave_it_open_what_the_split_is(
    names: list[str], message: str, write: Any
) -> None:
    for name in names:
        write(f"d/{name}.jsonl", {"n": 1})
    with pytest.raises(DataError) as caught:
        folder().table("train")
    assert str(caught.value) == message
