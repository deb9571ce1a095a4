"""Splits in a local folder: files named after them, shards, subfolders, or what `datasets` saved."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftune.data.files import is_row_file, read_files
from peftune.data.locations import described, holdings
from peftune.data.readers import File
from peftune.data.table import Table
from peftune.errors import DataError
from peftune.records import read_json

SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.[\w.]+")
SAVED_SET = "state.json"
"""What `save_to_disk` writes beside the Arrow files of a split."""
NO_ROWS = (SAVED_SET, "dataset_dict.json", "dataset_info.json", "dataset_infos.json")
"""What libraries write about data, with an ending that rows have too."""


@dataclass(frozen=True)
class FolderSplits:
    """The splits that a folder holds."""

    key: str
    """The recipe key that names the folder."""
    typed: str
    """The folder as the recipe writes it."""
    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that could be told from the names of files and subfolders."""
        if self._saved_alone:
            return ("train",)
        return tuple(dict.fromkeys(filter(None, map(self._split_of, self._entries()))))

    @property
    def holdings(self) -> str:
        """What there is, for a message about what there is not."""
        return holdings(self.folder)

    def table(self, split: str) -> Table:
        """The rows of a split. Raises DataError for files of which it is unclear what they mean."""
        folder = self.folder if self._saved_alone else self.folder / split
        if (folder / SAVED_SET).is_file():
            files = _saved_files(folder)
        else:
            entries = [entry for entry in self._entries() if self._split_of(entry) == split]
            files = self._files(entries)
        named = [File(self.key, str(path), str(path)) for path in files]
        return read_files(named, self.key, described([file.name for file in named]))

    @property
    def _saved_alone(self) -> bool:
        return (self.folder / SAVED_SET).is_file()

    def _entries(self) -> list[Path]:
        """What may be a split: in the folder, and in its `data`, where the Hub keeps files."""
        folders = [self.folder, self.folder / "data"]
        return [entry for one in folders if one.is_dir() for entry in sorted(one.iterdir())]

    def _split_of(self, entry: Path) -> str | None:
        if entry.is_dir():
            holds = any(map(_holds_rows, entry.iterdir())) and entry != self.folder / "data"
            return entry.name if holds else None
        if not _holds_rows(entry):
            return None
        shard = SHARD.fullmatch(entry.name)
        return shard["split"] if shard else entry.name.partition(".")[0]

    def _files(self, entries: Sequence[Path]) -> list[Path]:
        shards = [entry for entry in entries if SHARD.fullmatch(entry.name)]
        if shards and len(shards) == len(entries):
            self._require_all_shards(shards)
            return shards
        if len(entries) > 1:
            names = " and ".join(str(entry.relative_to(self.folder)) for entry in entries)
            raise DataError(f"{self.key}: {self.typed!r} holds {names}; keep one of them.")
        [entry] = entries
        return sorted(filter(_holds_rows, entry.iterdir())) if entry.is_dir() else [entry]

    def _require_all_shards(self, shards: Sequence[Path]) -> None:
        found = [SHARD.fullmatch(shard.name) for shard in shards]
        counts = {shard["count"] for shard in found if shard}
        if len(counts) > 1 or len(shards) != int(counts.pop()):
            raise DataError(
                f"{self.key}: {self.typed!r} holds {len(shards)} files like {shards[0].name}, which "
                "says that there should be another number of them; complete them, or name the files "
                "in data.train."
            )


def _holds_rows(path: Path) -> bool:
    return path.is_file() and is_row_file(path) and path.name not in NO_ROWS


def _saved_files(folder: Path) -> list[Path]:
    state = read_json(folder / SAVED_SET)
    return [folder / entry["filename"] for entry in state["_data_files"]]
