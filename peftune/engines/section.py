"""The recipe's `ranks:` section: how long ranks have patience with each other. Changes no number."""

from typing import Literal

from pydantic import Field

from peftune.section import Items, Section

PreflightName = Literal[
    "versions", "recipe", "weights", "memory", "disk", "gpu", "clock", "link", "data"
]


class RanksSection(Section):
    """What ranks expect of each other, and of the machines they are on."""

    wait_s: float = Field(default=600.0, gt=0)
    """Seconds that a rank waits for the others to start; who is missing is said after a few."""

    silent_s: float = Field(default=60.0, ge=2)
    """A rank that says nothing for so many seconds ends the run on all others."""

    stalled_s: float = Field(default=900.0, gt=0)
    """So does a step in which no rank gets through a forward or backward pass for so many seconds."""

    min_bandwidth: float = Field(default=0.2, gt=0)
    """Slowest link between ranks that will do, in megabytes per second of an all-reduce; set it to what
    the network should have."""

    accept: Items[PreflightName] = ()
    """Checks of the preflight that may fail, by name; they are warnings then."""
