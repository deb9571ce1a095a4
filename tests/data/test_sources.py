from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from peftune import embedded
from peftune.data.section import DataSection
from peftune.errors import DataError
from tests.data.loading import load_splits

PROMPT = ("prompt", "completion")


def row(number: int) -> dict[str, str]:
    return {"prompt": f"question {number}", "completion": f"answer {number}"}


def prompts(examples: list[Any]) -> list[str]:
    return [example.prompt for example in examples]


def refusal(roles: tuple[str, ...] = PROMPT, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_splits(DataSection(**keys), roles, None, seed=0)
    return str(caught.value)


def test_a_folder_holds_up_to_three_splits(write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1), row(2))
    Path("data/test.csv").write_text("prompt,completion\nq,a\n")
    splits = load_splits(DataSection(path="data"), PROMPT, None, seed=0)
    assert {name: prompts(rows) for name, rows in splits.items()} == {
        "train": ["question 1", "question 2"],
        "validation": [],
        "test": ["q"],
    }


def test_every_kind_of_file_gives_the_same_examples(write_rows: Any) -> None:
    write_rows("t.jsonl", row(1), row(2))
    Path("t.csv").write_text("prompt,completion\nquestion 1,answer 1\nquestion 2,answer 2\n")
    parquet.write_table(pyarrow.Table.from_pylist([row(1), row(2)]), "t.parquet")
    lines, values, columns = (
        load_splits(DataSection(train=f"t.{kind}"), PROMPT, None, seed=0)
        for kind in ("jsonl", "csv", "parquet")
    )
    assert prompts(lines["train"]) == ["question 1", "question 2"]
    assert lines == values == columns


def test_a_hub_id_that_is_no_local_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": datasets.Dataset.from_list([row(1)])}
    splits["test"] = datasets.Dataset.from_list([row(2)])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **keys: splits)
    loaded = load_splits(DataSection(path="me/set", revision="v1"), PROMPT, None, seed=0)
    assert {name: prompts(rows) for name, rows in loaded.items()} == {
        "train": ["question 1"],
        "validation": [],
        "test": ["question 2"],
    }


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refusal(path="peftune/no-such-data-set") == (
        "data.path: 'peftune/no-such-data-set' is no local folder, and the Hub could not be "
        "reached. Give the path of a folder, or check the network and unset HF_HUB_OFFLINE."
    )


def test_a_local_folder_comes_before_a_hub_id(write_rows: Any) -> None:
    # The folder's name is also a valid id, which no test can reach.
    write_rows("squad/train.jsonl", row(1))
    splits = load_splits(DataSection(path="squad"), PROMPT, None, seed=0)
    assert prompts(splits["train"]) == ["question 1"]


def test_files_are_named_one_by_one_and_replace_splits_of_a_folder(write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1))
    write_rows("data/test.jsonl", row(2))
    write_rows("other.jsonl", row(3))
    section = DataSection(path="data", test="other.jsonl")
    assert prompts(load_splits(section, PROMPT, None, seed=0)["test"]) == ["question 3"]
    section = DataSection(train="data/test.jsonl", validation="other.jsonl")
    splits = load_splits(section, PROMPT, None, seed=0)
    assert prompts(splits["train"]) == ["question 2"]
    assert prompts(splits["validation"]) == ["question 3"]


def test_embedded_data_is_a_folder_of_the_package(
    write_rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_rows("pocket/train.jsonl", row(1))
    monkeypatch.setattr(embedded, "_FOLDER", tmp_path)
    splits = load_splits(DataSection(path="embedded:pocket"), PROMPT, None, seed=0)
    assert prompts(splits["train"]) == ["question 1"]


def test_limits_take_the_first_rows(write_rows: Any) -> None:
    write_rows("t.jsonl", *map(row, range(9)))
    section = DataSection(train="t.jsonl", max_train_samples=2)
    splits = load_splits(section, PROMPT, None, seed=0)
    assert prompts(splits["train"]) == ["question 0", "question 1"]


def test_values_beyond_a_limit_are_not_checked(write_rows: Any) -> None:
    blank = {"prompt": "q", "completion": ""}
    write_rows("t.jsonl", row(0), row(1), blank)
    write_rows("v.jsonl", row(2), blank)
    keys = {"train": "t.jsonl", "validation": "v.jsonl"}
    limited = DataSection(**keys, max_train_samples=2, max_validation_samples=1)
    splits = load_splits(limited, PROMPT, None, seed=0)
    assert [len(rows) for rows in splits.values()] == [2, 1, 0]
    assert refusal(**keys, max_train_samples=3, max_validation_samples=1) == (
        "data.columns: completion: column 'completion' is blank in 1 of 3 rows; the first is "
        "t.jsonl:3. To leave them out, set data.accept: {invalid: 0.3334}."
    )


def test_the_validation_cut_depends_on_the_seed_alone(write_rows: Any) -> None:
    write_rows("t.jsonl", *map(row, range(40)))
    section = DataSection(train="t.jsonl", validation_fraction=0.25)
    first, again, other = (load_splits(section, PROMPT, None, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["validation"] != other["validation"]
    assert len(first["validation"]) == 10
    rows = [example.row for example in first["train"] + first["validation"]]
    assert sorted(rows) == list(range(40))


def test_a_limit_leaves_the_validation_cut_alone(write_rows: Any) -> None:
    write_rows("t.jsonl", *map(row, range(40)))
    keys = {"train": "t.jsonl", "validation_fraction": 0.25}
    whole = load_splits(DataSection(**keys), PROMPT, None, seed=1)
    limited = load_splits(DataSection(**keys, max_train_samples=3), PROMPT, None, seed=1)
    assert limited["validation"] == whole["validation"]
    assert limited["train"] == whole["train"][:3]


def test_a_data_set_without_training_rows(write_rows: Any, tmp_path: Path) -> None:
    write_rows("data/dev.jsonl", row(1))
    assert refusal(path="data") == (
        "data.path: 'data' has no split named train. The folder data holds: dev.jsonl. Say which "
        "one serves, e.g. data.splits: {train: dev}."
    )


def test_two_files_for_one_split(write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1))
    Path("data/train.csv").write_text("prompt,completion\nq,a\n")
    assert refusal(path="data") == (
        "data.path: 'data' holds train.csv and train.jsonl; keep one of them."
    )


def test_paths_that_lead_nowhere(write_rows: Any, tmp_path: Path) -> None:
    write_rows("dialogues/train.jsonl", row(1))
    folder = tmp_path.resolve()
    assert refusal(path="./dialouges") == (
        f"data.path: no such folder: ./dialouges. The folder {folder} holds: dialogues. "
        "Did you mean dialogues?"
    )
    assert refusal(path="rows.jsonl") == (
        f"data.path: no such folder: rows.jsonl. The folder {folder} holds: dialogues."
    )
    assert refusal(path="dialogues/train.jsonl") == (
        "data.path: 'dialogues/train.jsonl' is a file; name it in data.train."
    )
    assert refusal(train="dialogues/trian.jsonl") == (
        f"data.train: no such file: dialogues/trian.jsonl. The folder {folder / 'dialogues'} "
        "holds: train.jsonl. Did you mean train.jsonl?"
    )


def test_an_unknown_embedded_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dialogues").mkdir()
    monkeypatch.setattr(embedded, "_FOLDER", tmp_path)
    assert refusal(path="embedded:dialogs") == (
        "data.path: unknown embedded reference 'embedded:dialogs'; there are: embedded:dialogues."
    )


def test_hub_keys_beside_a_local_folder(write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1))
    assert refusal(path="data", revision="v1") == (
        "data.path: 'data' is local; data.name and data.revision belong to a Hub id."
    )


def test_preference_data_is_refused_unless_an_answer_is_chosen(write_rows: Any) -> None:
    write_rows("t.jsonl", {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert refusal(train="t.jsonl") == (
        "data.train: t.jsonl has columns chosen and rejected; preference data is out of scope. To "
        "learn the chosen answers, set data.columns: {completion: chosen}."
    )
    section = DataSection(train="t.jsonl", columns={"completion": "chosen"})
    assert load_splits(section, PROMPT, None, seed=0)["train"][0].completion == "good"


def test_a_second_validation_split_is_refused(write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1), row(2))
    write_rows("data/validation.jsonl", row(3))
    assert refusal(path="data", validation_fraction=0.5) == (
        "data.validation_fraction: 0.5 of the training rows, but there is a validation split "
        "already (data/validation.jsonl); remove the key."
    )


def test_a_role_that_the_task_does_not_have(write_rows: Any) -> None:
    write_rows("t.jsonl", row(1))
    assert refusal(train="t.jsonl", columns={"promt": "prompt"}) == (
        "data.columns: unknown role 'promt'. Did you mean prompt? The roles of this task are: "
        "prompt, completion, references."
    )


def test_a_references_column_that_no_split_has(write_rows: Any) -> None:
    write_rows("t.jsonl", row(1))
    assert refusal(train="t.jsonl", columns={"references": "refs"}) == (
        "data.columns: references: no split has a column named 'refs'."
    )


def test_training_rows_in_the_test_split_are_refused(write_rows: Any) -> None:
    write_rows("train.jsonl", row(1), row(2), row(3))
    write_rows("test.jsonl", row(4), {"prompt": "Question: 2!", "completion": "other"}, row(3))
    assert refusal(train="train.jsonl", test="test.jsonl") == (
        "data.test: 2 of 3 test rows are also trained on (1 letter for letter); the first is "
        "test.jsonl:2, the same as train.jsonl:2. Remove them from one of the two. To go on with "
        "them, set data.accept: {overlap: 0.6667}."
    )
    # Rows that a limit leaves out are not trained on.
    section = DataSection(train="train.jsonl", test="test.jsonl", max_train_samples=1)
    assert len(load_splits(section, PROMPT, None, seed=0)["test"]) == 3


def numbered(splits: dict[Any, list[Any]]) -> dict[str, list[int]]:
    return {
        name: [int(example.prompt.split()[1]) for example in rows] for name, rows in splits.items()
    }


def test_slices_of_a_folder_serve_as_splits(write_rows: Any) -> None:
    write_rows("data/train.jsonl", *map(row, range(10)))
    write_rows("data/dev.jsonl", *map(row, range(10, 20)))
    slices = {"train": "train[:80%]", "validation": "train[80%:]", "test": "dev[:3]"}
    splits = load_splits(DataSection(path="data", splits=slices), PROMPT, None, seed=0)
    assert numbered(splits) == {
        "train": list(range(8)),
        "validation": [8, 9],
        "test": [10, 11, 12],
    }


def test_slices_of_the_hub_and_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"full": datasets.Dataset.from_list([row(n) for n in range(10)])}
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **keys: loaded)
    slices = {"train": "full[:7]", "test": "full[-2:]"}
    splits = load_splits(DataSection(path="me/set", splits=slices), PROMPT, None, seed=0)
    assert numbered(splits) == {"train": list(range(7)), "validation": [], "test": [8, 9]}
    assert refusal(path="me/set", splits={"train": "full[:7]", "test": "full[5:]"}) == (
        "data.path: 2 of 5 test rows are also trained on (2 letter for letter); the first is row 6 "
        "of me/set (full), the same as row 6 of me/set (full). Remove them from one of the two. To "
        "go on with them, set data.accept: {overlap: 0.4}."
    )


def test_a_file_replaces_a_split_and_its_slice(write_rows: Any) -> None:
    write_rows("data/train.jsonl", *map(row, range(4)))
    write_rows("data/test.jsonl", {"no": "roles"})
    write_rows("other-1.jsonl", row(7))
    write_rows("other-2.jsonl", row(8))
    section = DataSection(path="data", test=("other-2.jsonl", "other-1.jsonl"))
    assert numbered(load_splits(section, PROMPT, None, seed=0))["test"] == [8, 7]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": "training"},
            "data.splits: train: 'data' has no split named 'training'. The folder data holds: "
            "train.jsonl. Did you mean train?",
        ),
        (
            {"test": "train[:101%]"},
            "data.splits: test: 'train[:101%]': 101% is no share of the rows; 0% to 100% are.",
        ),
        (
            {"train": "train[:900]"},
            "data.splits: train: 'train[:900]' reaches beyond the 2 rows of data/train.jsonl.",
        ),
    ],
)
def test_splits_that_are_not_there(splits: dict[Any, str], message: str, write_rows: Any) -> None:
    write_rows("data/train.jsonl", row(1), row(2))
    assert refusal(path="data", splits=splits) == message


def test_an_address_is_no_folder() -> None:
    assert refusal(path="s3://bucket/data") == (
        "data.path: 's3://bucket/data' is an address; name the files there in data.train, "
        "data.validation and data.test."
    )


def test_a_folder_without_files_of_rows(write_rows: Any) -> None:
    write_rows("data/notes.md", "no rows")
    assert refusal(path="data") == (
        "data.path: 'data' has no split named train. The folder data holds: notes.md. A split is a "
        "file such as train.jsonl (or .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt) or a folder "
        "of such files."
    )


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A Hub data set of 100 rows; the list says which rows were fetched."""
    fetched: list[int] = []

    def rows() -> Any:
        for number in range(100):
            fetched.append(number)
            yield row(number)

    def answer(path: str, name: Any, revision: Any, streaming: bool) -> dict[str, Any]:
        assert streaming
        return {"train": datasets.IterableDataset.from_generator(rows)}

    monkeypatch.setattr(datasets, "load_dataset", answer)
    commit = SimpleNamespace(sha="8f2a")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *of, **which: commit)
    return fetched


def test_a_stream_is_read_as_far_as_its_limit(stream: list[int]) -> None:
    slices = {"train": "train[5:]", "validation": "train[:5]"}
    limits = {"max_train_samples": 4, "max_validation_samples": 2}
    section = DataSection(path="me/set", streaming=True, splits=slices, **limits)
    splits = load_splits(section, PROMPT, None, seed=0)
    assert numbered(splits) == {"train": [5, 6, 7, 8], "validation": [0, 1], "test": []}
    assert max(stream) <= 10


def test_streams_that_would_have_no_end(stream: list[int], write_rows: Any) -> None:
    assert refusal(path="me/set", streaming=True) == (
        "data.streaming: me/set (train) is read as a stream, whose end may be far away; set "
        "data.max_train_samples, or remove data.streaming."
    )
    entries = ({"path": "me/set"},)
    assert refusal(mixture=entries, streaming=True) == (
        "data.streaming: set data.mixture.0.max_samples; a stream is not read to its end."
    )
    assert refusal(path="me/set", streaming=True, splits={"train": "train[:50%]"}) == (
        "data.splits: train: 'train[:50%]': the rows of a stream are not counted, so a slice of it "
        "needs whole numbers from its start, e.g. train[1000:]."
    )
    write_rows("t.jsonl", row(1))
    write_rows("data/train.jsonl", row(1))
    assert refusal(train="t.jsonl", streaming=True) == (
        "data.streaming: every file is local and read row by row anyway; remove the key."
    )
    assert refusal(path="data", streaming=True) == (
        "data.streaming: data.path: 'data' is a local folder, which is read row by row anyway; "
        "remove the key."
    )


def test_a_references_column_that_only_a_late_row_has(write_rows: Any) -> None:
    late = {**row(1001), "refs": ["a", "b"]}
    write_rows("t.jsonl", *map(row, range(1001)), late)
    section = DataSection(train="t.jsonl", columns={"references": "refs"})
    assert load_splits(section, PROMPT, None, seed=0)["train"][-1].references == ("a", "b")


def test_shared_data_loads(shared_folder: Path) -> None:
    path = shared_folder / "data" / "summarization_dialogsum"
    columns = {"prompt": "dialogue", "completion": "summary"}
    section = DataSection(path=str(path), columns=columns, max_length=8192)
    splits = load_splits(section, PROMPT, None, seed=0)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [5150, 490, 249]
    assert {len(example.references) for example in splits["test"]} == {3}
