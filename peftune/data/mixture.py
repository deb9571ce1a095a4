"""Several sources of training rows as one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from math import ceil, floor

import numpy

from peftune.data.order import permutation
from peftune.data.table import Piece, PlacedRow, Table, digest, listed


def mixed_counts(available: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Rows to use of each source: floor(w_i / sum(w) · N) for the largest N that repeats no row.

    N is limited by each source alone: floor(p · N) <= n holds for N < (n + 1) / p.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    largest = min(ceil((n + 1) / p) - 1 for n, p in zip(available, shares, strict=True))
    return tuple(floor(share * largest) for share in shares)


@dataclass(frozen=True)
class Mixed:
    """Chosen rows of several tables, interleaved; a row's position is its place in the mixture.

    Which rows of table i are chosen follows from (seed, i), and their order from (seed, number of
    tables) and the counts, so every machine mixes alike. The rows of one table keep their order,
    and each table is read from its start to its end.
    """

    tables: tuple[Table, ...]
    counts: tuple[int, ...]
    """How many rows of each table are used."""
    seed: int

    def rows(self) -> Iterator[PlacedRow]:
        sources = [self._chosen_rows(i) for i in range(len(self.tables))]
        for position, index in enumerate(self._turns):
            yield position, next(sources[index])[1]

    def pieces(self, size: int) -> Iterator[Piece]:
        return listed(self.rows(), size)

    def count(self) -> int:
        return sum(self.counts)

    def at(self, position: int) -> str:
        index = int(self._turns[position])
        before = int((self._turns[:position] == index).sum())
        source_position, _ = next(islice(self._chosen_rows(index), before, None))
        return self.tables[index].at(source_position)

    def fingerprint(self) -> str:
        tables = [table.fingerprint() for table in self.tables]
        return digest([tables, list(self.counts), self.seed])

    @property
    def shares(self) -> tuple[str, ...]:
        """For people: how many rows of each source are used."""
        return tuple(
            f"{count:,} of {len(table):,} rows of {table.place}"
            for table, count in zip(self.tables, self.counts, strict=True)
        )

    @cached_property
    def _turns(self) -> numpy.ndarray:
        """Which table each row comes from, int64 (rows,)."""
        turns = numpy.repeat(numpy.arange(len(self.counts)), self.counts)
        return turns[list(permutation(self.seed, len(self.counts), len(turns)))]

    def _chosen_rows(self, index: int) -> Iterator[PlacedRow]:
        table, count = self.tables[index], self.counts[index]
        if count == len(table):
            yield from table
            return
        chosen = numpy.zeros(len(table), dtype=bool)
        chosen[list(permutation(self.seed, index, len(table))[:count])] = True
        yield from (placed for placed, used in zip(table, chosen, strict=True) if used)


def mixed(tables: Sequence[Table], weights: Sequence[float] | None, seed: int) -> Table:
    """One table of several, in proportion to `weights`, or with every row where there are none."""
    available = tuple(len(table) for table in tables)
    counts = available if weights is None else mixed_counts(available, weights)
    return Table("data.mixture", "data.mixture", Mixed(tuple(tables), counts, seed))
