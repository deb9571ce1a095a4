"""Short rows side by side attend as each of them would alone, gradients included."""

from collections.abc import Callable

import pytest
import torch

from peftune.model.attention import in_buckets, row_by_row
from peftune.model.documents import Documents, Reading, documents_of
from peftune.model.row_bias import RowBias
from peftune.model.short_attention import attend_short
from peftune.model.short_rows import WIDTHS, buckets_of

LENGTHS = (5, 3, 7, 4, 150, 3, 6, 8, 5, 4, 3, 4)
SHORT = tuple(length for length in LENGTHS if length <= WIDTHS[-1])
SEEN = (9, 2, 11, 3, 20, 2, 10, 9, 12, 2, 2, 3)
HEADS, SIZE = 4, 6


def documents(lengths: tuple[int, ...]) -> Documents:
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return documents_of(mask)


def drawn(own: Documents, seen: Documents, key_heads: int = HEADS) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(own, HEADS), (seen, key_heads), (seen, key_heads)]
    return [
        torch.randn(1, heads, len(side.places), SIZE, dtype=torch.float64, requires_grad=True)
        for side, heads in shapes
    ]


def window(width: int) -> torch.Tensor:
    near = torch.arange(width)
    return ((near[:, None] - near).abs() < 2)[None, None]


def relative(width: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, HEADS, width, width, dtype=torch.float64)


@pytest.mark.parametrize(
    ("seen", "key_heads", "bias", "causal"),
    [
        (LENGTHS, HEADS, None, True),
        (LENGTHS, HEADS, None, False),
        (LENGTHS, 2, None, True),
        (LENGTHS, HEADS, window(150), False),
        (LENGTHS, 2, relative(150), False),
        (SEEN, HEADS, None, False),
    ],
    ids=["causal", "bidirectional", "shared-keys", "window", "relative", "cross"],
)
def test_scores_and_gradients(
    seen: tuple[int, ...], key_heads: int, bias: torch.Tensor | None, causal: bool
) -> None:
    own, other = documents(LENGTHS), documents(seen)
    found = buckets_of(own, own if seen is LENGTHS else other, HEADS, key_heads)
    assert found is not None and len(found.own.shapes) < len(LENGTHS) / 2
    assert found.others == tuple(row for row, length in enumerate(LENGTHS) if length == 150)
    inputs = drawn(own, other, key_heads)
    reading = Reading((other, own), stack=1, states=torch.zeros(()))
    one_by_one = row_by_row(reading, *inputs, RowBias(whole=bias), causal, 0.0, 0.5)
    expected = torch.cat([row.transpose(1, 2) for row in one_by_one], dim=1)
    together = in_buckets(found, reading, *inputs, RowBias(whole=bias), causal, 0.5)
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(expected)
    for ours, alone in zip(
        torch.autograd.grad(together, inputs, slope),
        torch.autograd.grad(expected, inputs, slope),
        strict=True,
    ):
        torch.testing.assert_close(ours, alone, rtol=1e-12, atol=1e-12)


def kept_of(compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What is computed, and the tensors that are kept for its gradient."""
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        return compute(), kept


@pytest.mark.parametrize(
    ("lengths", "keeps"), [((7, 8, 8, 7, 17, 18, 17), 2), ((19, 20, 22, 21, 24), 0)]
)
def test_weights_are_kept_where_they_are_less_than_what_they_are_made_of(
    lengths: tuple[int, ...], keeps: int
) -> None:
    """Of 6 numbers a head: as many queries, keys and values as weights come to 18 tokens."""
    own = documents(lengths)
    found, inputs, reading = buckets_of(own, own, HEADS, HEADS), drawn(own, own), Reading((own,), 0)
    assert found is not None
    made, kept = kept_of(lambda: attend_short(found, *inputs, None, False, None))
    assert len(kept) == 3 + keeps
    rows = row_by_row(reading, *inputs, RowBias(), False, 0.0, None)
    slope = torch.randn_like(made)
    for ours, alone in zip(
        torch.autograd.grad(made, inputs, slope),
        torch.autograd.grad(torch.cat([row.transpose(1, 2) for row in rows], 1), inputs, slope),
        strict=True,
    ):
        torch.testing.assert_close(ours, alone, rtol=1e-12, atol=1e-12)


def test_a_longer_row_keeps_its_own_part_alone() -> None:
    own = documents(LENGTHS)
    found, inputs, reading = buckets_of(own, own, HEADS, HEADS), drawn(own, own), Reading((own,), 0)
    assert found is not None
    _, kept = kept_of(lambda: in_buckets(found, reading, *inputs, RowBias(), False, None))
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    assert given.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in kept)


def test_rows_that_are_unlike_or_long_are_computed_alone() -> None:
    few, long = documents((4, 9, 30, 90)), documents((400, 400, 400, 400))
    assert buckets_of(few, few, HEADS, HEADS) is None
    assert buckets_of(long, long, HEADS, HEADS) is None


def test_a_bucket_holds_no_more_scores_than_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftune.model.short_rows.MOST_SCORES", 3 * HEADS * 8 * 8)
    own = documents(SHORT)
    found = buckets_of(own, own, HEADS, HEADS)
    assert found is not None
    assert all(rows <= 3 or width < 8 for rows, _, width in found.own.shapes)
    assert sum(rows for rows, _, _ in found.own.shapes) == len(SHORT)
    inputs, reading = drawn(own, own), Reading((own,), stack=0)
    alone = torch.cat(
        [row.transpose(1, 2) for row in row_by_row(reading, *inputs, RowBias(), True, 0.0, None)],
        dim=1,
    )
    together = attend_short(found, *inputs, None, True, None)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_bfloat16_is_rounded_once(causal: bool) -> None:
    own = documents(SHORT)
    found = buckets_of(own, own, HEADS, HEADS)
    assert found is not None
    narrow = [one.detach().bfloat16().requires_grad_() for one in drawn(own, own)]
    exact = [one.detach().double().requires_grad_() for one in narrow]
    ours = attend_short(found, *narrow, None, causal, 0.5)
    expected = attend_short(found, *exact, None, causal, 0.5)
    assert ours.dtype is torch.bfloat16
    slope = torch.randn_like(ours)
    found_grads = torch.autograd.grad(ours, narrow, slope)
    exact_grads = torch.autograd.grad(expected, exact, slope.double())
    for one, sure in zip((ours, *found_grads), (expected, *exact_grads), strict=True):
        # Half a unit in the last of bfloat16's 8 bits, and the rounding of float32.
        torch.testing.assert_close(one.double(), sure, rtol=2**-8, atol=1e-6)


def test_autocast_does_not_narrow_what_is_computed_in_float32() -> None:
    own = documents(SHORT)
    found = buckets_of(own, own, HEADS, HEADS)
    assert found is not None
    inputs = [one.detach().float().requires_grad_() for one in drawn(own, own)]
    slope = torch.randn(1, len(own.places), HEADS, SIZE)
    plain = torch.autograd.grad(attend_short(found, *inputs, None, True, None), inputs, slope)
    with torch.autocast("cpu", torch.bfloat16):
        within = torch.autograd.grad(attend_short(found, *inputs, None, True, None), inputs, slope)
    assert all(map(torch.equal, plain, within))
