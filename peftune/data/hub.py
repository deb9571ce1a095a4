"""Rows of a data set on the Hugging Face Hub, or of its copy in the local cache."""

from peftune.data.files import Table
from peftune.data.section import SPLITS, DataSection, Split
from peftune.errors import DataError


def read_hub(section: DataSection) -> dict[Split, Table]:
    """The train, validation and test splits of the Hub data set `section.path`.

    Only these three names are taken; a split called dev or val is not guessed to be one of them.
    Raises DataError when the data set cannot be reached, does not exist or has no such
    configuration.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    assert section.path is not None
    try:
        loaded = load_dataset(section.path, name=section.name, revision=section.revision)
    except ConnectionError as error:
        raise DataError(
            f"data.path: {section.path!r} is no local folder, and the Hub could not be reached. "
            "Give the path of a folder, or check the network and unset HF_HUB_OFFLINE."
        ) from error
    except DatasetNotFoundError as error:
        raise DataError(
            f"data.path: {section.path!r} is no local folder, and the Hub says: {_one_line(error)} "
            "A private or gated data set needs HF_TOKEN."
        ) from error
    except ValueError as error:
        key = f"data.name: {section.name!r}" if section.name else f"data.path: {section.path!r}"
        raise DataError(f"{key}: {_one_line(error)} Set data.name.") from error
    _require_train(section.path, list(loaded))
    return {
        split: _table(section.path, split, loaded[split]) for split in SPLITS if split in loaded
    }


def _table(path: str, split: Split, rows: object) -> Table:
    table = Table("data.path", f"{path} ({split})", tuple(enumerate(rows)))  # type: ignore[arg-type]
    if not table.rows:
        raise DataError(f"data.path: the {split} split of {path} holds no rows.")
    return table


def _require_train(path: str, names: list[str]) -> None:
    if "train" not in names:
        raise DataError(
            f"data.path: {path!r} has no split named train; its splits are: {', '.join(names)}. "
            "Save the training rows to a file and name it in data.train."
        )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."
