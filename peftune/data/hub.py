"""Rows of a data set on the Hugging Face Hub, or of its copy in the local cache."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peftune.data.features import named_by
from peftune.data.readers.reader import numbered
from peftune.data.table import Piece, PlacedRow, Table, digest, listed
from peftune.errors import DataError

ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hub as the recipe names it."""

    key: str
    """Beginning of the recipe keys that name it: `data`, or an entry of a mixture."""
    path: str
    name: str | None = None
    revision: str | None = None
    streaming: bool = False
    """Whether rows are fetched when they are read, each time anew."""


def read_hub(hub: HubSet) -> "HubSplits":
    """The splits of a data set, under the names that they have there.

    Raises DataError when the data set cannot be reached, does not exist or has no such
    configuration.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    keys: dict[str, Any] = {"name": hub.name, "revision": hub.revision}
    keys |= {"streaming": True} if hub.streaming else {}
    try:
        loaded = load_dataset(hub.path, **keys)
    except ConnectionError as error:
        raise DataError(
            f"{hub.key}.path: {hub.path!r} is no local folder, and the Hub could not be reached. "
            "Give the path of a folder, or check the network and unset HF_HUB_OFFLINE."
        ) from error
    except DatasetNotFoundError as error:
        raise DataError(
            f"{hub.key}.path: {hub.path!r} is no local folder, and the Hub says: {_one_line(error)} "
            "A private or gated data set needs HF_TOKEN."
        ) from error
    except ValueError as error:
        named = f"name: {hub.name!r}" if hub.name else f"path: {hub.path!r}"
        raise DataError(f"{hub.key}.{named}: {_one_line(error)} Set {hub.key}.name.") from error
    return HubSplits(hub, loaded)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."


@dataclass(frozen=True)
class HubSplits:
    """The splits of one data set."""

    hub: HubSet
    loaded: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, self.loaded))

    @property
    def holdings(self) -> str:
        """What there is, for a message about what there is not."""
        return f"Its splits are: {', '.join(self.names)}."

    def table(self, split: str) -> Table:
        """The rows of a split. Raises DataError where there are none."""
        hub, place = self.hub, f"{self.hub.path} ({split})"
        rows = self.loaded[split]
        source = HubStream(hub, place, rows) if hub.streaming else HubSplit(hub, place, rows)
        if next(source.rows(), None) is None:
            raise DataError(f"{hub.key}.path: the {split} split of {hub.path} holds no rows.")
        return Table(f"{hub.key}.path", place, source)


@dataclass(frozen=True)
class HubSplit:
    """A split in the local cache of `datasets`, mapped into memory."""

    hub: HubSet
    place: str
    dataset: Any

    def rows(self) -> Iterator[PlacedRow]:
        return _between(self.dataset, 0, len(self.dataset))

    def pieces(self, size: int) -> Iterator[Piece]:
        rows = len(self.dataset)
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            yield Piece(start, stop, stop - start, reads=_read, origin=self.dataset)

    def count(self) -> int:
        return len(self.dataset)

    def at(self, position: int) -> str:
        return numbered(self.place, position)

    def fingerprint(self) -> str:
        """The files it was made from, whose addresses have the resolved revision; else the rows."""
        info = self.dataset.info
        if not info.download_checksums:
            return digest([row for _, row in self.rows()])
        origin = [self.hub.path, info.config_name, str(info.version), self.place]
        return digest([*origin, len(self.dataset), info.download_checksums])


def _read(dataset: Any, piece: Piece) -> Iterator[PlacedRow]:
    start = piece.first + piece.skip
    return _between(dataset, start, start + piece.count)


def _between(dataset: Any, start: int, stop: int) -> Iterator[PlacedRow]:
    plain = dataset.with_format(None)
    named = named_by(plain.features.to_dict())
    for first in range(start, stop, ROWS_AT_ONCE):
        columns = plain[first : min(first + ROWS_AT_ONCE, stop)]
        values = zip(*columns.values(), strict=True)
        for position, cells in enumerate(values, first):
            yield position, named(dict(zip(columns, cells, strict=True)))


@dataclass(frozen=True)
class HubStream:
    """A split that is fetched row by row, each time anew."""

    hub: HubSet
    place: str
    dataset: Any

    def rows(self) -> Iterator[PlacedRow]:
        features = self.dataset.features
        named = named_by(features.to_dict() if features is not None else {})
        for position, row in enumerate(self.dataset):
            yield position, named(row)

    def pieces(self, size: int) -> Iterator[Piece]:
        return listed(self.rows(), size)

    def count(self) -> int:
        return sum(1 for _ in self.dataset)

    def at(self, position: int) -> str:
        return numbered(self.place, position)

    def fingerprint(self) -> str:
        """The commit that the revision stands for now."""
        from huggingface_hub import HfApi

        commit = HfApi().dataset_info(self.hub.path, revision=self.hub.revision).sha
        return digest([self.hub.path, self.hub.name, commit, self.place])
