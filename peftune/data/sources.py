"""All splits of a recipe's data as examples: found, read, checked, cut and limited."""

import re
from collections.abc import Sequence
from pathlib import Path

from peftune.data.examples import Reading, require_columns
from peftune.data.files import READERS, Table, holdings, read_table
from peftune.data.hub import read_hub
from peftune.data.roles import check_roles
from peftune.data.section import SPLITS, DataSection, Split
from peftune.embedded import EMBEDDED_PREFIX, embedded_path
from peftune.errors import DataError

HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def open_splits(
    section: DataSection, roles: tuple[str, ...], default_template: str | None
) -> dict[Split, Table]:
    """The table of every split that the data has, limited as the recipe says.

    `roles` are the columns that the task's rows must have, the one to learn last.
    Only `validation_fraction` is cut before the training limit, so that a limit leaves the cut as
    it is. Raises DataError.
    """
    check_roles(section, roles)
    tables = read_tables(section)
    _check_references(section, tables)
    if section.validation_fraction is not None:
        _refuse_second_validation(section, tables)
    reading = Reading(section, roles, default_template)
    for table in tables.values():
        require_columns(table, reading)
    return {split: _limited(table, split, section) for split, table in tables.items()}


def _limited(table: Table, split: Split, section: DataSection) -> Table:
    if split == "train" and section.validation_fraction is not None:
        return table
    return table.limited(section.sample_limit(split))


def read_tables(section: DataSection) -> dict[Split, Table]:
    """The rows of every split that the recipe names or that `data.path` holds. Raises DataError."""
    tables = _tables_of_path(section) if section.path is not None else {}
    files = dict(zip(SPLITS, (section.train, section.validation, section.test), strict=True))
    for split, file in files.items():
        if file is not None:
            tables[split] = read_table(Path(file), f"data.{split}")
    for table in tables.values():
        _refuse_preferences(section, table)
    return tables


def _tables_of_path(section: DataSection) -> dict[Split, Table]:
    assert section.path is not None
    if section.path.startswith(EMBEDDED_PREFIX):
        return _read_folder(section, _embedded_folder(section.path))
    path = Path(section.path).expanduser()
    if path.is_dir():
        return _read_folder(section, path)
    if path.is_file():
        raise DataError(f"data.path: {section.path!r} is a file; name it in data.train.")
    if HUB_ID.fullmatch(section.path) is None or path.suffix in READERS:
        raise DataError(
            f"data.path: no such folder: {section.path}. "
            f"{holdings(path.absolute().parent, path.name)}"
        )
    return read_hub(section)


def _embedded_folder(reference: str) -> Path:
    try:
        return embedded_path(reference)
    except ValueError as error:
        raise DataError(f"data.path: {error}.") from error


def _read_folder(section: DataSection, folder: Path) -> dict[Split, Table]:
    if section.name or section.revision:
        raise DataError(
            f"data.path: {section.path!r} is local; data.name and data.revision belong to a Hub id."
        )
    found = {split: _files_of(folder, split) for split in SPLITS}
    for files in found.values():
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise DataError(f"data.path: {section.path!r} holds {names}; keep one of them.")
    if not found["train"]:
        raise DataError(
            f"data.path: {section.path!r} has no train split ({_choices('train')}). "
            f"{holdings(folder)}"
        )
    return {split: read_table(files[0], "data.path") for split, files in found.items() if files}


def _files_of(folder: Path, split: Split) -> Sequence[Path]:
    named = [folder / f"{split}{suffix}" for suffix in READERS]
    return [file for file in named if file.is_file()]


def _choices(split: Split) -> str:
    *most, last = (f"{split}{suffix}" for suffix in READERS)
    return f"{', '.join(most)} or {last}"


def _refuse_preferences(section: DataSection, table: Table) -> None:
    named = {"completion", "text"} & set(section.columns)
    if {"chosen", "rejected"} <= set(table.columns) and not named:
        raise DataError(
            f"{table.key}: {table.place} has columns chosen and rejected; preference data is out "
            "of scope. To learn the chosen answers, set data.columns: {completion: chosen}."
        )


def _check_references(section: DataSection, tables: dict[Split, Table]) -> None:
    column = section.columns.get("references")
    if column is not None and not any(column in table.columns for table in tables.values()):
        raise DataError(f"data.columns: references: no split has a column named {column!r}.")


def _refuse_second_validation(section: DataSection, tables: dict[Split, Table]) -> None:
    if "validation" in tables:
        raise DataError(
            f"data.validation_fraction: {section.validation_fraction} of the training rows, but "
            f"there is a validation split already ({tables['validation'].place}); remove the key."
        )
