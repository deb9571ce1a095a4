"""The self-test's own arithmetic."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from peftune.data.rows import IGNORED
from peftune.objectives import ObjectiveName
from peftune.selftest.memory import longest_places
from peftune.selftest.plain_loss import row_loss
from peftune.selftest.trial import spread_difference
from peftune.selftest.weights import checksum
from peftune.training.loss import count_targets, nll_sum

SHAPES: dict[ObjectiveName, tuple[tuple[int, ...], list[float]]] = {
    "causal": ((1, 5, 9), [IGNORED, IGNORED, 3, 4, 1]),
    "seq2seq": ((1, 4, 9), [3, IGNORED, 4, 1]),
    "masked": ((1, 4, 9), [IGNORED, 2, IGNORED, 8]),
    "corrupted": ((1, 4, 9), [3, 8, 4, 1]),
    "label": ((1, 3), [2]),
    "labels": ((1, 3), [1.0, 0.0, 1.0]),
    "value": ((1, 1), [0.75]),
    "tags": ((1, 4, 5), [IGNORED, 4, IGNORED, 0]),
    "span": ((1, 2, 6), [1, 3]),
}


@pytest.mark.parametrize("objective", SHAPES)
def test_the_second_loss_is_the_first(objective: ObjectiveName) -> None:
    """They share no line, and agree on rows of every objective."""
    shape, wanted = SHAPES[objective]
    scores = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([wanted])
    smoothings = (0.0,) if objective in ("labels", "value", "span") else (0.0, 0.2)
    for smoothing in smoothings:
        total, count = row_loss(scores, labels, objective, smoothing)
        assert float(total) == pytest.approx(float(nll_sum(scores, labels, objective, smoothing)))
        assert count == count_targets(labels, objective)


def test_the_largest_batch_is_wide_on_both_sides() -> None:
    """Row 1 has the most tokens, row 3 the most labels, row 2 the most together but for these."""
    lengths = np.array([[5, 5], [90, 1], [60, 20], [4, 30], [50, 1]])
    assert longest_places(lengths, 3) == [1, 3, 2]
    assert longest_places(lengths, 1) == [1]
    assert longest_places(lengths[:2], 5) == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int8])
def test_a_checksum_sees_one_bit_and_the_order(dtype: torch.dtype) -> None:
    weights = (100 * torch.randn(1000, generator=torch.Generator().manual_seed(0))).to(dtype)
    flipped, swapped = weights.clone(), weights.clone()
    flipped.view(torch.uint8)[137] ^= 1
    swapped[[3, 700]] = swapped[[700, 3]]
    assert weights[3] != weights[700]
    assert checksum(weights) == checksum(weights.clone())
    assert len({checksum(weights), checksum(flipped), checksum(swapped)}) == 3


def test_a_checksum_of_nothing() -> None:
    assert checksum(torch.empty(0)) == 0


def test_a_difference_is_measured_against_the_spread_of_all_rows() -> None:
    ours = [torch.tensor([0.0, 4.0]), torch.tensor([0.0, 4.0, 0.0, 4.0])]
    theirs = [ours[0] + 0.5, ours[1].clone()]
    assert spread_difference(ours, ours) == 0.0
    assert spread_difference(ours, theirs) == pytest.approx(0.25)


def test_shapes_and_infinities_must_agree() -> None:
    one, infinite = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -torch.inf])
    assert spread_difference([one], [one[:1]]) == torch.inf
    assert spread_difference([one], [infinite]) == torch.inf
    assert spread_difference([infinite], [infinite]) == 0.0
    assert spread_difference([one], [functional.pad(one, (0, 1))]) == torch.inf
