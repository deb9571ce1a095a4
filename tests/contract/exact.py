"""Numbers are held against the exact ones, and where float32 does not give those, against plain code."""

from dataclasses import replace

from tests.contract.cases import Case, Outcome, run
from tests.contract.comparing import TOLERANCE, check, differences

ROUNDING = 1.5
"""How much more than plain code ours may round, where that rounds more than the contract allows."""


def slow(case: Case) -> Case:
    """The same by the code of transformers and peft, with padding."""
    return replace(case, shortcuts=False, train={**case.train, "padding_free": False})


def check_exact(found: dict[str, float], case: Case, expected: Outcome, about: object = "") -> None:
    """Every number is the `expected` one; where plain code rounds as much there is nothing to gain."""
    if max(found.values()) >= TOLERANCE:
        plain = differences(run(slow(case)), expected)
        found = {name: one for name, one in found.items() if one > ROUNDING * plain[name]}
    check(found, about or case)
