"""All splits of a recipe's data: found, cut, brought into the roles of the task, and limited."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from peftune.data.detection import Choice, formatted
from peftune.data.examples import Reading, require_columns
from peftune.data.folders import FolderSplits
from peftune.data.formats import Roles
from peftune.data.hub import HubSet, read_hub
from peftune.data.locations import PROTOCOL_MARK, holdings, is_remote, read_named
from peftune.data.mixture import mixed
from peftune.data.readers import READERS
from peftune.data.roles import check_roles, known_roles, prompt_template
from peftune.data.section import SPLITS, DataSection, MixtureEntry, Split, names_of_paths
from peftune.data.splits import SplitSlice
from peftune.data.table import Table
from peftune.embedded import EMBEDDED_PREFIX, embedded_path
from peftune.errors import DataError, did_you_mean

HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


class Splits(Protocol):
    """A folder or data set with splits."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def holdings(self) -> str: ...

    def table(self, split: str) -> Table: ...


@dataclass(frozen=True)
class Origin:
    """What the recipe says about one folder or data set."""

    key: str
    """Beginning of the recipe keys: `data`, or an entry of a mixture."""
    path: str
    name: str | None
    revision: str | None
    streaming: bool


def open_splits(
    section: DataSection, roles: Roles, default_template: str | None, seed: int
) -> dict[Split, Table]:
    """The table of every split that the data has, in the roles of the task, limited as the recipe says.

    `roles` are the columns that the task's rows must have, the one to learn last; `seed` chooses
    and orders the rows of a mixture. Only `validation_fraction` is cut before the training limit, so
    that a limit leaves the cut as it is. Raises DataError.
    """
    check_roles(section, roles)
    tables = read_tables(section, roles, seed)
    _check_optional_columns(section, tables)
    if section.validation_fraction is not None:
        _refuse_second_validation(section, tables)
    reading = Reading(section, roles, default_template)
    for table in tables.values():
        require_columns(table, reading.of(table))
    return tables


def _limited(table: Table, split: Split, section: DataSection) -> Table:
    if split == "train" and section.validation_fraction is not None:
        return table
    return table.limited(section.sample_limit(split))


def read_tables(section: DataSection, roles: Roles, seed: int) -> dict[Split, Table]:
    """Every split that the recipe names or that `data.path` holds, limited. Raises DataError."""
    tables = _tables_of_path(section) if section.path is not None else {}
    for split in filter(section.files, SPLITS):
        tables[split] = read_named(section.files(split), f"data.{split}", section.streaming)
    _check_streaming(section, tables)
    mixes = bool(section.mixture)
    choice = Choice("data", section, section.format, section.columns, roles, roles_only=mixes)
    # Limited first: a look at the columns must not fetch more of a stream than is used.
    found = {s: _formatted(_limited(tables[s], s, section), choice) for s in SPLITS if s in tables}
    if mixes:
        found["train"] = _limited(_mixture(section, roles, seed), "train", section)
    return found


def _tables_of_path(section: DataSection) -> dict[Split, Table]:
    assert section.path is not None
    origin = Origin("data", section.path, section.name, section.revision, section.streaming)
    source, tables = _splits(origin), {}
    for split in SPLITS:
        wanted = SplitSlice.parse(section.splits.get(split, split), f"data.splits: {split}")
        serves = split in section.splits or wanted.name in source.names
        if serves and not section.files(split):
            tables[split] = _sliced(origin, source, wanted)
    if "train" not in tables:
        _refuse_missing_train(origin, source)
    return tables


def _sliced(origin: Origin, source: Splits, wanted: SplitSlice) -> Table:
    if wanted.name not in source.names:
        raise DataError(
            f"{wanted.key}: {origin.path!r} has no split named {wanted.name!r}. {source.holdings}"
            f"{did_you_mean(wanted.name, source.names)}"
        )
    return wanted.of(source.table(wanted.name), countable=not origin.streaming)


def _refuse_missing_train(origin: Origin, source: Splits) -> None:
    way_out = (
        f"Say which one serves, e.g. data.splits: {{train: {source.names[0]}}}."
        if source.names
        else f"A split is a file such as train.jsonl (or {', '.join(READERS)}) or a folder of such files."
    )
    raise DataError(
        f"{origin.key}.path: {origin.path!r} has no split named train. {source.holdings} {way_out}"
    )


def _splits(origin: Origin) -> Splits:
    """The folder or data set behind a path. Raises DataError."""
    key, typed = f"{origin.key}.path", origin.path
    if typed.startswith(EMBEDDED_PREFIX):
        return _folder(origin, _embedded_folder(key, typed))
    path = Path(typed).expanduser()
    if path.is_dir():
        return _folder(origin, path)
    if path.is_file():
        raise DataError(f"{key}: {typed!r} is a file; name it in {origin.key}.train.")
    if is_remote(typed) or PROTOCOL_MARK in typed:
        raise DataError(
            f"{key}: {typed!r} is an address; name the files there in {origin.key}.train"
            f"{', data.validation and data.test' if origin.key == 'data' else ''}."
        )
    if HUB_ID.fullmatch(typed) is None or path.suffix in READERS:
        raise DataError(
            f"{key}: no such folder: {typed}. {holdings(path.absolute().parent, path.name)}"
        )
    return read_hub(HubSet(origin.key, typed, origin.name, origin.revision, origin.streaming))


def _embedded_folder(key: str, reference: str) -> Path:
    try:
        return embedded_path(reference)
    except ValueError as error:
        raise DataError(f"{key}: {error}.") from error


def _folder(origin: Origin, folder: Path) -> FolderSplits:
    key = origin.key
    if origin.name or origin.revision:
        raise DataError(
            f"{key}.path: {origin.path!r} is local; {key}.name and {key}.revision belong to a Hub id."
        )
    if origin.streaming:
        raise DataError(
            f"data.streaming: {key}.path: {origin.path!r} is a local folder, which is read row by row "
            "anyway; remove the key."
        )
    return FolderSplits(f"{key}.path", origin.path, folder)


def _mixture(section: DataSection, roles: Roles, seed: int) -> Table:
    """The training rows of `data.mixture`."""
    tables = [
        _entry_table(section, entry, f"data.mixture.{index}", roles)
        for index, entry in enumerate(section.mixture)
    ]
    weights = [entry.weight for entry in section.mixture if entry.weight is not None]
    return mixed(tables, weights or None, seed)


def _entry_table(section: DataSection, entry: MixtureEntry, key: str, roles: Roles) -> Table:
    if entry.path is not None:
        origin = Origin(key, entry.path, entry.name, entry.revision, section.streaming)
        source = _splits(origin)
        table = _sliced(origin, source, SplitSlice.parse(entry.split or "train", f"{key}.split"))
    else:
        table = read_named(names_of_paths(entry.train), f"{key}.train", section.streaming)
    if section.streaming and entry.max_samples is None:
        raise DataError(f"data.streaming: set {key}.max_samples; a stream is not read to its end.")
    _check_entry_columns(section, entry, key, roles)
    choice = Choice(key, section, entry.format, entry.columns, roles, roles_only=True)
    return _formatted(table.limited(entry.max_samples), choice)


def _check_entry_columns(section: DataSection, entry: MixtureEntry, key: str, roles: Roles) -> None:
    template = prompt_template(section, roles, None)
    known = (*known_roles(roles), *(template.names if template else ()))
    for role in entry.columns:
        if role not in known:
            raise DataError(
                f"{key}.columns: unknown role {role!r}.{did_you_mean(role, known)} The roles of this "
                f"task are: {', '.join(dict.fromkeys(known))}."
            )


def _formatted(table: Table, choice: Choice) -> Table:
    named = {"completion", "text"} & set(choice.columns)
    if {"chosen", "rejected"} <= set(table.columns) and not named:
        raise DataError(
            f"{table.key}: {table.place} has columns chosen and rejected; preference data is out "
            f"of scope. To learn the chosen answers, set {choice.key}.columns: {{completion: chosen}}."
        )
    return formatted(table, choice)


def _check_streaming(section: DataSection, tables: dict[Split, Table]) -> None:
    """A stream is read as far as its limit, so it needs one; local rows are no stream."""
    if not section.streaming:
        return
    for split, table in tables.items():
        names = section.files(split)
        streamed = table.key == "data.path" or any(map(is_remote, names))
        if streamed and section.sample_limit(split) is None:
            raise DataError(
                f"data.streaming: {table.place} is read as a stream, whose end may be far away; set "
                f"data.max_{split}_samples, or remove data.streaming."
            )
    if not section.mixture and not any(
        table.key == "data.path" or any(map(is_remote, section.files(split)))
        for split, table in tables.items()
    ):
        raise DataError(
            "data.streaming: every file is local and read row by row anyway; remove the key."
        )


def _check_optional_columns(section: DataSection, tables: dict[Split, Table]) -> None:
    """A role that rows may lack would be lost without a word where every row lacks it.

    In a mixture the columns of each source have been brought into roles already.
    """
    for role in ("references", "tools", "answer", "answer_start"):
        column = section.columns.get(role)
        if column is None or section.mixture:
            continue
        # All columns are known only after reading on, which the first ones mostly spare.
        if any(column in table.columns for table in tables.values()):
            continue
        if not any(column in table.all_columns for table in tables.values()):
            raise DataError(f"data.columns: {role}: no split has a column named {column!r}.")


def _refuse_second_validation(section: DataSection, tables: dict[Split, Table]) -> None:
    if "validation" in tables:
        raise DataError(
            f"data.validation_fraction: {section.validation_fraction} of the training rows, but "
            f"there is a validation split already ({tables['validation'].place}); remove the key."
        )
