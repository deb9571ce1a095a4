"""Which rows of a split the recipe asks for: `train`, `train[:90%]`, `test[100:600]`."""

import re
from dataclasses import dataclass
from typing import Self

from peftune.data.table import Table
from peftune.errors import DataError

SPELLING = re.compile(r"(?P<name>[\w.-]+)(\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?")
NUMBER = re.compile(r"-?\d+%?")


@dataclass(frozen=True)
class Bound:
    """One end of a slice."""

    number: int
    percent: bool

    def row(self, rows: int) -> int:
        """The row at which the slice begins or ends; negative numbers count from the end.

        A share is rounded to the nearest row, so that `[:30%]` and `[30%:]` share out every row.
        """
        row = round(self.number * rows / 100) if self.percent else self.number
        return rows + row if self.number < 0 else row


@dataclass(frozen=True)
class SplitSlice:
    """A split by its name in the source, and which of its rows."""

    key: str
    typed: str
    name: str
    start: Bound | None = None
    stop: Bound | None = None

    @classmethod
    def parse(cls, typed: str, key: str) -> Self:
        """Read the spelling of the `datasets` library. Raises DataError."""
        found = SPELLING.fullmatch(typed.strip())
        if found is None:
            raise DataError(_misspelt(key, typed))
        bounds = [_bound(found[end], key, typed) for end in ("start", "stop")]
        return cls(key, typed, found["name"], *bounds)

    @property
    def needs_count(self) -> bool:
        """Whether the rows follow only from how many rows there are."""
        ends = [bound for bound in (self.start, self.stop) if bound is not None]
        return any(bound.percent or bound.number < 0 for bound in ends)

    def of(self, table: Table, countable: bool = True) -> Table:
        """The rows of `table` that the slice means.

        `countable` is false for streams, whose number of rows is not known. Raises DataError for a
        slice that reaches beyond the rows, or holds none.
        """
        if self.start is None and self.stop is None:
            return table
        if not countable:
            return self._of_stream(table)
        rows = len(table)
        start = 0 if self.start is None else self.start.row(rows)
        stop = rows if self.stop is None else self.stop.row(rows)
        if not (0 <= start <= rows and 0 <= stop <= rows):
            raise DataError(
                f"{self.key}: {self.typed!r} reaches beyond the {rows:,} rows of {table.place}."
            )
        self._require_rows(start, stop, f" of the {rows:,} in {table.place}")
        return table.cut(start, stop)

    def _of_stream(self, table: Table) -> Table:
        if self.needs_count:
            raise DataError(
                f"{self.key}: {self.typed!r}: the rows of a stream are not counted, so a slice of it "
                "needs whole numbers from its start, e.g. train[1000:]."
            )
        start = self.start.number if self.start else 0
        stop = self.stop.number if self.stop else None
        if stop is not None:
            self._require_rows(start, stop, "")
        return table.cut(start, stop)

    def _require_rows(self, start: int, stop: int, of: str) -> None:
        if start >= stop:
            raise DataError(f"{self.key}: {self.typed!r} holds no rows{of}.")


def _bound(text: str | None, key: str, typed: str) -> Bound | None:
    text = (text or "").strip()
    if not text:
        return None
    if NUMBER.fullmatch(text) is None:
        raise DataError(_misspelt(key, typed))
    number, percent = int(text.rstrip("%")), text.endswith("%")
    if percent and not -100 <= number <= 100:
        raise DataError(f"{key}: {typed!r}: {text} is no share of the rows; 0% to 100% are.")
    return Bound(number, percent)


def _misspelt(key: str, typed: str) -> str:
    return (
        f"{key}: {typed!r} is not the name of a split, with a slice or without, like train, "
        "train[:90%] or test[100:600]."
    )
