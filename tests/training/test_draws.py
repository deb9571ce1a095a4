"""Random numbers of a row are its own: wherever it stands, however wide its batch is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import pytest
import torch

from peftune.errors import TrainingError
from peftune.model.documents import current_reading, reading_of
from peftune.training.draws import RowDraws, row_draws

WIDTH = 24


def padded(*ids: int, seed: int = 3, step: int = 5) -> RowDraws:
    return row_draws(seed, step, {"row_ids": torch.tensor(ids)[:, None]})


@contextmanager
def unpadded(lengths: dict[int, int]) -> Iterator[RowDraws]:
    """The draws of rows in layers that leave out their padding."""
    sizes = torch.tensor([*lengths.values()])
    mask = (torch.arange(int(sizes.max())) < sizes[:, None]).long()
    with reading_of({"attention_mask": mask}) as reading:
        reading.stack = 0
        yield padded(*lengths)


def hidden(rows: int, tokens: int) -> torch.Tensor:
    return torch.empty(rows, tokens, WIDTH)


def numbers(draws: RowDraws, shape: torch.Tensor, before: int = 0) -> torch.Tensor:
    return replace(draws, count=before).uniform(shape)


def test_neighbours_order_and_padding_change_nothing() -> None:
    alone = numbers(padded(7), hidden(1, 5))
    assert torch.equal(numbers(padded(2, 7, 9), hidden(3, 11))[1, :5], alone[0])
    assert torch.equal(numbers(padded(7, 2), hidden(2, 5))[0], alone[0])


def test_unpadded_rows_draw_what_they_draw_alone() -> None:
    with unpadded({2: 4, 7: 5, 9: 3}) as draws:
        together = numbers(draws, hidden(1, 12))
        flattened = numbers(draws, torch.empty(12, WIDTH))
    assert torch.equal(together[0, 4:9], numbers(padded(7), hidden(1, 5))[0])
    assert torch.equal(flattened, together[0])


def test_tokens_of_all_rows_in_one_axis_are_still_of_their_rows() -> None:
    flat = numbers(padded(2, 7), torch.empty(2 * 5, WIDTH))
    assert torch.equal(flat.view(2, 5, WIDTH), numbers(padded(2, 7), hidden(2, 5)))


def test_attention_weights_are_those_of_the_rows_alone() -> None:
    alone = numbers(padded(7), torch.empty(1, 2, 5, 5))
    wide = numbers(padded(2, 7), torch.empty(2, 2, 9, 9))
    assert torch.equal(wide[1, :, :5, :5], alone[0])
    with unpadded({2: 4, 7: 5}) as draws:
        current_reading().row = 0
        draws.uniform(torch.empty(1, 2, 4, 4))
        current_reading().row = 1
        assert torch.equal(draws.uniform(torch.empty(1, 2, 5, 5)), alone)


def test_seed_step_row_and_layer_each_give_other_numbers() -> None:
    seen = {
        tuple(numbers(padded(row, seed=seed, step=step), hidden(1, 2), layer).flatten().tolist())
        for seed, step, row, layer in product((0, 1), (0, 1, 11), (-1, 0, 1, 11), (0, 1, 11))
    }
    assert len(seen) == 2 * 3 * 4 * 3


def test_each_draw_goes_on() -> None:
    draws, shape = padded(1), hidden(1, 4)
    first = draws.uniform(shape)
    assert not torch.equal(draws.uniform(shape), first)
    assert draws.count == 2


def test_what_rows_share_is_one_mask_for_the_step() -> None:
    table = torch.empty(16, WIDTH)
    one, other = padded(1, 2), padded(3, 4, 5)
    one.shared = other.shared = True
    assert torch.equal(one.kept(table, 0.3), other.kept(table, 0.3))
    assert not torch.equal(
        numbers(replace(padded(1, step=6), shared=True), table), one.uniform(table)
    )


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_dropout_drops_its_share(p: float) -> None:
    """Within five standard errors, over all values, over rows, tokens and columns."""
    kept = padded(*range(64)).kept(torch.empty(64, 50, 64), p).double()
    assert abs(kept.mean() - (1 - p)) < 5 * (p * (1 - p) / kept.numel()) ** 0.5
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        share = kept.mean(dim=others)
        error = (p * (1 - p) * len(share) / kept.numel()) ** 0.5
        assert (share - (1 - p)).abs().max() < 5 * error, axis


def test_neighbouring_values_are_independent() -> None:
    """Correlation along every axis, and between layers, within five standard errors."""
    draws = padded(*range(64))
    x = draws.uniform(torch.empty(64, 50, 64)).double() - 0.5
    later = draws.uniform(torch.empty(64, 50, 64)).double() - 0.5
    pairs = [
        (x, later),
        *((x.narrow(a, 1, x.shape[a] - 1), x.narrow(a, 0, x.shape[a] - 1)) for a in range(3)),
    ]
    for one, other in pairs:
        correlation = float((one * other).mean() * 12)
        assert abs(correlation) < 5 / one.numel() ** 0.5


def test_uniform_numbers_fill_their_interval() -> None:
    x = padded(*range(64)).uniform(torch.empty(64, 50, 64)).double()
    assert 0.0 <= float(x.min()) < 1e-4 and 1 - 1e-4 < float(x.max()) < 1.0
    error = (1 / 12 / x.numel()) ** 0.5
    assert abs(float(x.mean()) - 0.5) < 5 * error
    assert abs(float(x.var()) - 1 / 12) < 5 * (1 / 180 / x.numel()) ** 0.5


@pytest.mark.parametrize(("draws", "shape"), [(padded(1, 2, 3), (4, 5)), (padded(1, 2), (1, 4, 8))])
def test_a_tensor_that_is_not_of_rows_is_refused(draws: RowDraws, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        TrainingError, match=r"cannot be told apart by rows.*adapter.lora_dropout: 0"
    ):
        draws.uniform(torch.empty(shape))
