"""The recipe's `selftest:` section."""

from typing import Literal

from peftune.section import Items, Section

CheckName = Literal[
    "targets",
    "base_finite",
    "end_token",
    "padding",
    "causality",
    "loss",
    "memory",
    "gradients",
    "base_unchanged",
    "throughput",
    "accumulation",
    "ranks",
    "learns",
    "reload",
]


class SelftestSection(Section):
    """The checks that come before the first step."""

    full: bool = False
    """Run every check of `peftune selftest` before training, not only the quick ones."""

    accept: Items[CheckName] = ()
    """Checks that may fail, by name. What failed is recorded in the model card."""
