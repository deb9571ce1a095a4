"""What became of a split, for people."""

from dataclasses import dataclass

from peftune.data.section import Split
from peftune.data.tally import Tally


@dataclass(frozen=True)
class SplitReport:
    """The counts of one split."""

    split: Split
    tally: Tally
    overlong: str
    learnt: str = "tokens"
    """What `tally.learnt` counts."""

    def __str__(self) -> str:
        tally = self.tally
        shortened = tally.changed if self.overlong == "truncate_prompt" else 0
        windows = tally.changed - shortened
        policies = (
            ("dropped", tally.dropped),
            ("with a shortened prompt", shortened),
            ("windows of longer rows", windows),
        )
        changes = "".join(f", {count:,} {what}" for what, count in policies if count)
        return (
            f"{self.split}: {tally.rows:,} rows{changes}; {self._learnt()}; "
            f"longest row {tally.longest:,} tokens"
        )

    def _learnt(self) -> str:
        if self.learnt == "tokens":
            return f"{self.tally.learnt:,} of {self.tally.tokens:,} tokens are learnt"
        return f"{self.tally.learnt:,} {self.learnt} to learn from {self.tally.tokens:,} tokens"
