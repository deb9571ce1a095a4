"""What layers share of a bias, and what each of them cuts out for itself."""

import pytest
import torch

from peftune.model import row_bias
from peftune.model.row_bias import RowBias

BIAS, CAUSAL = torch.randn(1, 2, 7, 7), torch.ones(1, 1, 7, 7, dtype=torch.bool).tril()


def storage(tensor: torch.Tensor | None) -> int:
    assert tensor is not None
    return tensor.untyped_storage().data_ptr()


def read_by(layers: int) -> RowBias:
    """What so many layers were given one after another."""
    bias = RowBias()
    for _ in range(layers):
        assert bias.read(None, BIAS, False) is BIAS
    return bias


def test_the_first_layer_copies_nothing() -> None:
    part = read_by(1).part(3, 5)
    assert part is not None
    assert torch.equal(part, BIAS[..., :3, :5])
    assert storage(part) == storage(BIAS)


def test_those_that_follow_share_a_copy_in_one_piece() -> None:
    bias = read_by(2)
    part = bias.part(3, 5)
    assert part is not None
    assert torch.equal(part, BIAS[..., :3, :5])
    assert part.is_contiguous()
    assert bias.part(3, 5) is part
    assert bias.part(7, 7) is not part
    bias.read(None, BIAS, False)
    assert bias.part(3, 5) is part


def test_another_bias_leaves_no_copy() -> None:
    bias = read_by(2)
    bias.part(3, 5)
    other = BIAS + 1
    bias.read(None, other, False)
    assert bias.parts == {}
    assert storage(bias.part(3, 5)) == storage(other)


def test_no_more_is_held_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_bias, "MOST_HELD", 2 * 3 * 5)
    bias = read_by(2)
    assert bias.part(3, 5) is bias.part(3, 5)
    assert storage(bias.part(4, 4)) == storage(BIAS)
    assert [*bias.parts] == [(3, 5)]


def test_a_mask_is_joined_once() -> None:
    bias = RowBias()
    whole = bias.read(CAUSAL, BIAS, False)
    assert whole is not None
    assert torch.equal(whole, BIAS.masked_fill(~CAUSAL, -torch.inf))
    assert bias.read(CAUSAL, BIAS, False) is whole
    alone = bias.read(None, BIAS, True)
    assert alone is not None
    assert alone is not whole
    assert torch.equal(alone, whole)


def test_nothing_is_added_where_there_is_nothing() -> None:
    bias = RowBias()
    assert bias.read(None, None, True) is None
    assert bias.part(3, 5) is None
    assert bias.read(CAUSAL, torch.zeros(1, 1, 1, 1), False) is CAUSAL
