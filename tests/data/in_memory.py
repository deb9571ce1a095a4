"""Tables whose rows a test writes down."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peftune.data.table import Piece, PlacedRow, Row, Table, digest, listed


@dataclass(frozen=True)
class Written:
    """Rows as the lines of a file, or as the rows of anything else."""

    place: str
    written: tuple[Row, ...]

    def rows(self) -> Iterator[PlacedRow]:
        return iter(enumerate(self.written))

    def pieces(self, size: int) -> Iterator[Piece]:
        return listed(self.rows(), size)

    def count(self) -> int:
        return len(self.written)

    def at(self, position: int) -> str:
        lines = self.place.endswith(".jsonl")
        return f"{self.place}:{position + 1}" if lines else f"row {position + 1} of {self.place}"

    def fingerprint(self) -> str:
        return digest(self.written)


def in_memory(key: str, place: str, rows: Sequence[Row]) -> Table:
    return Table(key, place, Written(place, tuple(rows)))
