"""What became of the splits, for people and for data_report.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from peftune.data.gates import Finding
from peftune.data.ledger import Ledger
from peftune.data.section import Split

PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True)
class SplitReport:
    """The counts of one split."""

    split: Split
    ledger: Ledger
    findings: tuple[Finding, ...]
    """Rows that did not pass a gate and were accepted."""
    invalid: int
    """Rows that are no examples and were accepted."""
    overlong: str
    """The policy for over-long rows."""
    learnt: str = "tokens"
    """What is learnt."""
    train_on: str = ""
    """Which part of a row is learnt, where that can be chosen."""
    sources: tuple[str, ...] = ()
    """Of a mixture: how many rows of each source are used."""

    @property
    def rows(self) -> int:
        """Encoded rows: examples less dropped ones, plus additional windows."""
        return self.ledger.total("rows")

    @property
    def dropped(self) -> int:
        """Rows of the source that nothing is learnt from."""
        return self.invalid + int((self.ledger["rows"] == 0).sum())

    @property
    def changed(self) -> int:
        """Encoded rows that `data.overlong` shortened or cut out of longer ones."""
        return int(self.ledger["rows"][self.ledger["changed"]].sum())

    @property
    def longest(self) -> int:
        """Tokens of the longest example before any policy."""
        return int(self.ledger["tokens"].max(initial=0))

    def longest_row(self, max_length: int) -> int:
        """Tokens of the longest encoded row; a longer example was brought down to `max_length`."""
        kept = self.ledger["tokens"][self.ledger["rows"] > 0]
        return int(np.minimum(kept, max_length).max(initial=0))

    def __str__(self) -> str:
        policies = (
            ("dropped", self.dropped),
            ("with a shortened prompt", self.changed if self.overlong == "truncate_prompt" else 0),
            ("windows of longer rows", 0 if self.overlong == "truncate_prompt" else self.changed),
            ("with answers told by generation blocks", self.ledger.total("marked")),
        )
        changes = "".join(f", {count:,} {what}" for what, count in policies if count)
        return (
            f"{self.split}: {self.rows:,} rows{changes}; {self._learnt()}; "
            f"longest row {self.longest:,} tokens{self._mixed()}"
        )

    def _mixed(self) -> str:
        return f"; mixed from {', '.join(self.sources)}" if self.sources else ""

    def _learnt(self) -> str:
        learnt, tokens = self.ledger.total("learnt"), self.ledger.total("kept")
        if self.learnt == "tokens":
            part = f" ({self.train_on})" if self.train_on else ""
            return f"{learnt:,} of {tokens:,} tokens are learnt{part}"
        return f"{learnt:,} {self.learnt} to learn from {tokens:,} tokens"

    def to_dict(self) -> dict[str, Any]:
        """For data_report.json; lengths are in tokens, before any policy."""
        lengths = self.ledger["tokens"] if len(self.ledger) else np.zeros(1)
        quantiles = zip(PERCENTILES, np.percentile(lengths, PERCENTILES), strict=True)
        return {
            "rows": self.rows,
            "examples": len(self.ledger),
            "dropped": self.dropped,
            "changed": self.changed,
            f"learnt_{self.learnt}": self.ledger.total("learnt"),
            "tokens": self.ledger.total("kept"),
            "unknown_tokens": self.ledger.total("unknown"),
            "length": {f"p{p}": int(length) for p, length in quantiles},
            "sources": list(self.sources),
            "accepted": [finding.to_dict() for finding in self.findings],
        }


def data_report(
    reports: Mapping[Split, SplitReport], digests: Mapping[Split, str]
) -> dict[str, Any]:
    """The content of data_report.json: what became of each split, and a digest of its encoded rows, or
    of the training rows that it was cut out of."""
    return {
        split: {**report.to_dict(), "digest": digests.get(split, digests["train"])}
        for split, report in reports.items()
    }
