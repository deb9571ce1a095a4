"""The rows of one split: read from their source each time they are asked for, never kept."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol

Row = Mapping[str, Any]
PlacedRow = tuple[int, Row]
"""A row with its position in the source, from 0; for lines of a file the line number less one."""
Convert = Callable[[Row], Row]
"""Changes a row, or raises RowProblem."""
ROWS_TO_LOOK_AT = 1000
"""How many rows are read to find out which columns there are."""


class RowProblem(ValueError):
    """Why a row does not have the form of its format, as the end of a sentence."""


class MisformedRow(dict[str, Any]):
    """Stands for a row that does not have the form of its format, and has no columns."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self.problem = problem


@dataclass(frozen=True)
class Piece:
    """Neighbouring rows that can be read by themselves, in another process too."""

    first: int
    """Position of the row or line where reading starts."""
    stop: int
    """Position behind the last row."""
    count: int
    """How many rows belong to the piece, after `skip`."""
    skip: int = 0
    """How many rows from `first` on do not belong to it."""
    offset: int = 0
    """Where in its origin reading starts: a byte, a row group or a record batch."""
    reads: "Callable[[Any, Piece], Iterator[PlacedRow]] | None" = None
    """Reads the piece from its origin; None where the piece holds its rows."""
    origin: Any = None
    """The file or data set that the piece belongs to."""
    base: int = 0
    """Position of the origin's first row in the source; the others count from there."""
    rows: tuple[PlacedRow, ...] = ()
    """The rows themselves, where a source can only be read from its start."""

    def read(self) -> Iterator[PlacedRow]:
        """The rows with their positions in the source."""
        held = iter(self.rows[self.skip : self.skip + self.count])
        for position, row in held if self.reads is None else self.reads(self.origin, self):
            yield self.base + position, row


class Source(Protocol):
    """Where rows come from. Sources can be pickled."""

    def rows(self) -> Iterator[PlacedRow]:
        """All rows in order."""

    def pieces(self, size: int) -> Iterator[Piece]:
        """All rows in order, cut into pieces of at most `size` rows."""

    def count(self) -> int:
        """How many rows there are."""

    def at(self, position: int) -> str:
        """A row's place as people look it up."""

    def fingerprint(self) -> str:
        """Text that changes whenever the rows do."""


@dataclass(frozen=True)
class Table:
    """The rows of one split in the order of their source, each with its position there.

    Every iteration reads the source anew. A table can be pickled; the rows are not part of it.
    """

    key: str
    """The recipe key that named the source, e.g. `data.train`."""
    place: str
    """The source for messages: a file as the recipe writes it, or a Hub split."""
    source: Source
    start: int = 0
    """How many rows at the beginning of the source are left out."""
    stop: int | None = None
    """Which row of the source (from 0) is the first that is left out again."""
    convert: Convert | None = None
    """Turns each row into the roles of the task; a frozen dataclass, so that its text says all."""
    prompt_template: str | None = None
    """The prompt of rows in this format, where the recipe has none of its own."""

    def __iter__(self) -> Iterator[PlacedRow]:
        """Raises DataError for a row that cannot be read; see MisformedRow for others."""
        return _converted(islice(self.source.rows(), self.start, self.stop), self.convert)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        rows = self.source.count()
        return max(min(rows, rows if self.stop is None else self.stop) - self.start, 0)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column of the first 1,000 rows, in the order of appearance."""
        return tuple(
            dict.fromkeys(name for _, row in islice(self, ROWS_TO_LOOK_AT) for name in row)
        )

    @cached_property
    def all_columns(self) -> tuple[str, ...]:
        """Every column that some row has; reads the whole source."""
        return tuple(dict.fromkeys(name for _, row in self for name in row))

    def at(self, position: int) -> str:
        """A row's place as people look it up: a line of a file of lines, else a row number from 1."""
        return self.source.at(position)

    def limited(self, rows: int | None) -> "Table":
        """The first `rows` rows; all for None."""
        return self if rows is None else self.cut(0, rows)

    def cut(self, start: int, stop: int | None) -> "Table":
        """The rows from number `start` to before number `stop` of this table, from 0."""
        stops = [] if self.stop is None else [self.stop]
        stops += [] if stop is None else [self.start + stop]
        return replace(self, start=self.start + start, stop=min(stops, default=None))

    def select(self, positions: Iterable[int]) -> "Table":
        """The rows at these positions of the source, in the order of the source."""
        return replace(self, source=Selected(self.source, frozenset(positions)))

    def converted(self, convert: Convert, prompt_template: str | None = None) -> "Table":
        """The table with every row changed by `convert`, which may raise RowProblem."""
        return replace(self, convert=convert, prompt_template=prompt_template)

    def chunks(self, size: int) -> Iterator["Chunk"]:
        """The table cut into chunks of at most `size` rows."""
        seen = 0
        # A stream is fetched by whole pieces, of which no row should be fetched in vain.
        for piece in self.source.pieces(size if self.stop is None else min(size, self.stop)):
            begin = max(self.start - seen, 0)
            end = piece.count if self.stop is None else min(self.stop - seen, piece.count)
            if begin < end:
                part = replace(piece, skip=piece.skip + begin, count=end - begin)
                yield Chunk(part, self.convert)
            seen += piece.count
            if self.stop is not None and seen >= self.stop:
                return

    def fingerprint(self) -> str:
        """SHA-256 of what the rows are made from: the source's content, the range, the format."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Asked for by the labels and by the tokens; the source may be large.
        parts = [self.source.fingerprint(), self.start, self.stop, repr(self.convert)]
        return digest([*parts, self.prompt_template])


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of a table, small enough to send to another process."""

    piece: Piece
    convert: Convert | None

    def read(self) -> Iterator[PlacedRow]:
        """The rows. Raises DataError as iterating over the table does."""
        return _converted(self.piece.read(), self.convert)


def _converted(rows: Iterator[PlacedRow], convert: Convert | None) -> Iterator[PlacedRow]:
    if convert is None:
        yield from rows
        return
    for position, row in rows:
        try:
            changed = convert(row)
        except RowProblem as problem:
            changed = MisformedRow(str(problem))
        yield position, changed


@dataclass(frozen=True)
class Selected:
    """Some rows of a source."""

    source: Source
    positions: frozenset[int]

    def rows(self) -> Iterator[PlacedRow]:
        return (placed for placed in self.source.rows() if placed[0] in self.positions)

    def pieces(self, size: int) -> Iterator[Piece]:
        return listed(self.rows(), size)

    def count(self) -> int:
        return sum(1 for _ in self.rows())

    def at(self, position: int) -> str:
        return self.source.at(position)

    def fingerprint(self) -> str:
        return digest([self.source.fingerprint(), sorted(self.positions)])


def listed(rows: Iterator[PlacedRow], size: int) -> Iterator[Piece]:
    """Pieces that hold their rows, for sources that can only be read from their start."""
    while taken := tuple(islice(rows, size)):
        yield Piece(taken[0][0], taken[-1][0] + 1, len(taken), rows=taken)


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()


def json_kind(value: object) -> str:
    """What JSON calls a value of this type, with its article."""
    for types, name in (
        (str, "a text"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (list, "a list"),
        (dict, "an object"),
        (type(None), "null"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"
