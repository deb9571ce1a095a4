"""The Hub itself is out of reach here; what `datasets` answers is put in its place."""

from collections.abc import Callable
from typing import Any

import datasets
import pytest

from peftune.data.hub import read_hub
from peftune.data.section import DataSection
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
    tables = read_hub(DataSection(path="me/set", name="small", revision="v1"))
    assert asked == [("me/set", {"name": "small", "revision": "v1"})]
    assert list(tables) == ["train", "test"]
    assert [dict(row) for _, row in tables["test"].rows] == [{"a": "x"}, {"a": "y"}]
    assert tables["test"].at(1) == "row 2 of me/set (test)"


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
        read_hub(DataSection(path="me/set"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"training": [{"a": "x"}], "dev": [{"a": "x"}]},
            "data.path: 'me/set' has no split named train; its splits are: training, dev. Save the "
            "training rows to a file and name it in data.train.",
        ),
        (
            {"train": [{"a": "x"}], "test": []},
            "data.path: the test split of me/set holds no rows.",
        ),
    ],
)
def test_unusable_splits_are_refused(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[Any]], message: str
) -> None:
    answering(monkeypatch, lambda path, **keys: splits)
    with pytest.raises(DataError) as caught:
        read_hub(DataSection(path="me/set"))
    assert str(caught.value) == message


def test_datasets_really_raises_that_error_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the Hub could not be reached"):
        read_hub(DataSection(path="peftune/no-such-data-set"))
