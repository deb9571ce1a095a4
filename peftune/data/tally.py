"""What encoding did to the examples of one split, counted so that the counts of parts add up."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import get_args

from peftune.data.rows import IGNORED, Fault, Outcome

WORST = 5
"""How many of the worst rows are named."""
MOSTLY_UNKNOWN = 0.5
"""From this share of unknown tokens on, a row was written for another tokenizer."""
FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass
class Cases:
    """How many examples have a fault, and the worst of them."""

    count: int = 0
    worst: list[tuple[int, int, int]] = field(default_factory=list)
    """(size, row, tokens that matter): the largest first, then in the order of the source; at most
    WORST. The size is 0 where only the order counts."""

    def add(self, cases: Iterable[tuple[int, int, int]], count: int) -> None:
        self.count += count
        self.worst = sorted([*self.worst, *cases], key=lambda case: (-case[0], case[1]))[:WORST]


@dataclass
class Tally:
    """Counts of examples and of the rows they became."""

    examples: int = 0
    rows: int = 0
    """Encoded rows: examples less dropped ones, plus additional windows."""
    dropped: int = 0
    """Examples without a row: over-long ones under `data.overlong: drop`, and those with a fault."""
    changed: int = 0
    """Rows that `data.overlong` shortened or cut out of longer ones."""
    learnt: int = 0
    """Learnt tokens, or labels."""
    tokens: int = 0
    longest: int = 0
    """Tokens of the longest example before any policy."""
    unknown: int = 0
    """Tokens that stand for characters the tokenizer does not know."""
    end_ids: set[int] = field(default_factory=set)
    """Tokens that close a row."""
    faults: dict[Fault, Cases] = field(default_factory=lambda: {fault: Cases() for fault in FAULTS})
    mostly_unknown: Cases = field(default_factory=Cases)

    def add(self, outcome: Outcome) -> None:
        """Count one example."""
        self.examples += 1
        self.rows += len(outcome.rows)
        self.dropped += not outcome.rows
        self.changed += len(outcome.rows) if outcome.changed else 0
        self.learnt += sum(len(row.labels) - row.labels.count(IGNORED) for row in outcome.rows)
        self.tokens += outcome.kept
        self.longest = max(self.longest, outcome.tokens)
        self.unknown += outcome.unknown
        if outcome.end_id is not None:
            self.end_ids.add(outcome.end_id)
        if outcome.fault is not None:
            size = outcome.tokens if outcome.fault == "overlong" else 0
            self.faults[outcome.fault].add([(size, outcome.row, outcome.targets)], 1)
        if outcome.unknown and outcome.unknown >= MOSTLY_UNKNOWN * outcome.tokens:
            self.mostly_unknown.add([(0, outcome.row, outcome.unknown)], 1)

    def merge(self, other: "Tally") -> None:
        """Add the counts of another part of the same split."""
        for name in ("examples", "rows", "dropped", "changed", "learnt", "tokens", "unknown"):
            self.__dict__[name] += other.__dict__[name]
        self.longest = max(self.longest, other.longest)
        self.end_ids |= other.end_ids
        for fault, cases in other.faults.items():
            self.faults[fault].add(cases.worst, cases.count)
        self.mostly_unknown.add(other.mostly_unknown.worst, other.mostly_unknown.count)
