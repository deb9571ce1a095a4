"""The Hub itself is out of reach here; what `datasets` answers is put in its place."""

from collections.abc import Callable
from typing import Any

import datasets
import pytest

from peftune.data.hub import HubSet, read_hub
from peftune.errors import DataError


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> None:
    monkeypatch.setattr(datasets, "load_dataset", answer)


def test_splits_are_read_under_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list([{"a": "x"}, {"a": "y"}])
    asked: list[Any] = []

    def answer(path: str, **keys: Any) -> datasets.DatasetDict:
        asked.append((path, keys))
        return datasets.DatasetDict({"train": rows, "dev": rows, "test": rows})

    answering(monkeypatch, answer)
    splits = read_hub(HubSet("data", "me/set", "small", "v1"))
    assert asked == [("me/set", {"name": "small", "revision": "v1"})]
    assert splits.names == ("train", "dev", "test")
    table = splits.table("test")
    assert list(table) == [(0, {"a": "x"}), (1, {"a": "y"})]
    assert [list(chunk.read()) for chunk in table.chunks(1)] == [[one] for one in table]
    assert (len(table), table.at(1)) == (2, "row 2 of me/set (test)")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'me/set' on the Hub"),
            "data.path: 'me/set' is no local folder, and the Hub could not be reached. Give the "
            "path of a folder, or check the network and unset HF_HUB_OFFLINE.",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'me/set' doesn't exist on the Hub"),
            "data.path: 'me/set' is no local folder, and the Hub says: Dataset 'me/set' doesn't "
            "exist on the Hub. A private or gated data set needs HF_TOKEN.",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']"),
            "data.path: 'me/set': Config name is missing. Please pick one among: ['a', 'b']. Set "
            "data.name.",
        ),
    ],
)
def test_failures_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def answer(path: str, **keys: Any) -> None:
        raise error

    answering(monkeypatch, answer)
    with pytest.raises(DataError) as caught:
        read_hub(HubSet("data", "me/set"))
    assert str(caught.value) == message


def test_a_split_without_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list([])
    answering(monkeypatch, lambda path, **keys: {"test": rows})
    with pytest.raises(DataError) as caught:
        read_hub(HubSet("data", "me/set")).table("test")
    assert str(caught.value) == "data.path: the test split of me/set holds no rows."


def labelled_rows() -> datasets.Dataset:
    names = datasets.ClassLabel(names=["no", "yes"])
    tags = datasets.List(datasets.ClassLabel(names=["O", "B"]))
    features = datasets.Features({"label": names, "tags": tags, "n": datasets.Value("int32")})
    columns = {"label": [1, -1], "tags": [[0, 1], []], "n": [1, 0]}
    return datasets.Dataset.from_dict(columns, features=features)


NAMED = [
    (0, {"label": "yes", "tags": ["O", "B"], "n": 1}),
    (1, {"label": None, "tags": [], "n": 0}),
]


@pytest.mark.parametrize("streaming", [False, True])
def test_numbers_of_labels_become_their_names(
    streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_rows()
    asked: list[Any] = []

    def answer(path: str, **keys: Any) -> dict[str, Any]:
        asked.append(keys)
        return {"train": rows.to_iterable_dataset() if streaming else rows}

    answering(monkeypatch, answer)
    table = read_hub(HubSet("data", "me/set", streaming=streaming)).table("train")
    assert list(table) == NAMED
    assert asked[0].get("streaming", False) is streaming


def test_the_fingerprint_of_a_split_follows_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_list([{"a": "x"}])
    other = datasets.Dataset.from_list([{"a": "y"}])
    answering(monkeypatch, lambda path, **keys: {"train": rows, "copy": rows, "test": other})
    splits = read_hub(HubSet("data", "me/set"))
    marks = [splits.table(name).fingerprint() for name in ("train", "copy", "test")]
    assert marks[0] == marks[1] != marks[2]


def test_datasets_really_raises_that_error_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the Hub could not be reached"):
        read_hub(HubSet("data", "peftune/no-such-data-set"))
