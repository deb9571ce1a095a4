"""What a check is and what it finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftune.selftest.section import CheckName

if TYPE_CHECKING:
    from peftune.selftest.trial import Trial

Number = float | int | str


@dataclass(frozen=True)
class Finding:
    """The numbers that a check saw, and what is wrong with them."""

    numbers: Mapping[str, Number]
    failure: str | None = None
    """What is wrong and the way out, as the end of a sentence that starts with the check's name."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: CheckName
    promise: str
    """What holds when it passes."""
    run: Callable[["Trial"], Finding]
    applies: Callable[["Trial"], bool] = lambda trial: True
    """Whether it means anything for this model and task."""


@dataclass(frozen=True)
class Result:
    """A check that was run."""

    name: CheckName
    promise: str
    finding: Finding
    accepted: bool
    """Whether the recipe lets it fail."""
    seconds: float

    @property
    def stops(self) -> bool:
        return self.finding.failure is not None and not self.accepted
