"""How far two outcomes are apart."""

import torch

from tests.contract.cases import Outcome, Tensors

TOLERANCE = 1e-6
SHARE = 0.5


def largest(pairs: list[tuple[float, float]]) -> float:
    """Largest relative difference between numbers."""
    return max((abs(a - b) / max(abs(b), 1e-30) for a, b in pairs), default=0.0)


def apart(ours: Tensors, theirs: Tensors) -> float:
    """Largest difference between tensors of one name in the Euclidean norm, relative to their size.

    A tensor counts as at least SHARE of all together: what is left of terms that cancel, as in the
    bias under a softmax, is the rounding of the terms.
    """
    assert ours.keys() == theirs.keys()
    exact = {name: tensor.double() for name, tensor in theirs.items()}
    floor = SHARE * torch.stack([tensor.norm() for tensor in exact.values()]).norm()
    return max(
        float((ours[name].double() - tensor).norm() / tensor.norm().clamp(min=floor))
        for name, tensor in exact.items()
    )


def differences(ours: Outcome, theirs: Outcome) -> dict[str, float]:
    """Largest relative difference of each promise of the contract, over all steps."""
    assert ours.targets == theirs.targets
    pairs = list(zip(ours.gradients, theirs.gradients, strict=True))
    return {
        "loss": largest(list(zip(ours.losses, theirs.losses, strict=True))),
        "gradient norm": largest(list(zip(ours.norms, theirs.norms, strict=True))),
        "gradients": max(apart(*pair) for pair in pairs),
        "held-out loss": largest(list(zip(ours.held_out, theirs.held_out, strict=True))),
    }


def check(found: dict[str, float], about: object = "") -> None:
    """Assert that nothing differs by more than the contract allows."""
    for promise, difference in found.items():
        assert difference < TOLERANCE, (promise, found, about)
