"""NEFTune noise: as large as the paper says, on a row's own tokens only, and gone afterwards."""

import math

import pytest
import torch

from peftune.training.draws import RowDraws, row_draws
from peftune.training.neftune import embedding_noise

VOCABULARY, WIDTH, ALPHA = 50, 16, 5.0
LENGTHS = (3, 7, 12)


@pytest.fixture
def embedding() -> torch.nn.Embedding:
    torch.manual_seed(0)
    return torch.nn.Embedding(VOCABULARY, WIDTH)


def sizes_of(width: int) -> torch.Tensor:
    """The row's tokens at each of them and 0 at padding, (3, width), of rows with 3, 7 and 12."""
    lengths = torch.tensor(LENGTHS)[:, None]
    return (torch.arange(width) < lengths) * lengths


def draws_of(rows: int, seed: int = 0) -> RowDraws:
    return row_draws(seed, 0, {"row_ids": torch.arange(rows)[:, None]})


def noise(
    embedding: torch.nn.Module, sizes: torch.Tensor, seed: int = 0, alpha: float | None = ALPHA
) -> torch.Tensor:
    """What is added to the embeddings (3, T, 16) of one and the same token."""
    ids, draws = torch.full(sizes.shape, 4), draws_of(len(sizes), seed)
    with torch.no_grad(), embedding_noise(embedding, alpha, sizes, draws):
        noisy = embedding(ids)
    return (noisy - embedding(ids)).detach()


def test_noise_fills_its_bounds_and_stays_inside(embedding: torch.nn.Embedding) -> None:
    """±alpha / sqrt(tokens * width); the largest of so many draws comes close to the bound."""
    added = noise(embedding, sizes_of(12))
    for row, tokens in enumerate(LENGTHS):
        bound = ALPHA / math.sqrt(tokens * WIDTH)
        largest = float(added[row].abs().max())
        assert 0.9 * bound < largest <= bound + 1e-6


def test_noise_is_uniform_around_zero() -> None:
    """Mean 0 and variance bound²/3 within five standard errors."""
    embedding, sizes = torch.nn.Embedding(VOCABULARY, 64), torch.full((4, 100), 100)
    added = noise(embedding, sizes).double() / (ALPHA / math.sqrt(100 * 64))
    count = added.numel()
    assert abs(float(added.mean())) < 5 * math.sqrt(1 / 3 / count)
    assert abs(float(added.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / count)


def test_padding_stays_as_it_is(embedding: torch.nn.Embedding) -> None:
    sizes = sizes_of(12)
    added = noise(embedding, sizes)
    assert torch.equal(added[sizes == 0], torch.zeros_like(added[sizes == 0]))
    assert (added[sizes > 0].abs().sum(dim=-1) > 0).all()


def test_padding_does_not_change_the_noise(embedding: torch.nn.Embedding) -> None:
    assert torch.equal(noise(embedding, sizes_of(12)), noise(embedding, sizes_of(40))[:, :12])


def test_the_seed_decides(embedding: torch.nn.Embedding) -> None:
    sizes = sizes_of(12)
    assert torch.equal(noise(embedding, sizes, seed=1), noise(embedding, sizes, seed=1))
    assert not torch.equal(noise(embedding, sizes, seed=1), noise(embedding, sizes, seed=2))


def test_every_forward_pass_draws_anew(embedding: torch.nn.Embedding) -> None:
    sizes, ids = sizes_of(12), torch.full((3, 12), 4)
    with embedding_noise(embedding, ALPHA, sizes, draws_of(3)):
        assert not torch.equal(embedding(ids), embedding(ids))


def test_nothing_is_left_after_the_context(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    before = embedding(ids)
    noise(embedding, sizes_of(12))
    assert torch.equal(embedding(ids), before)


def test_nothing_is_left_after_an_error(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    before = embedding(ids)
    with pytest.raises(MemoryError), embedding_noise(embedding, ALPHA, sizes_of(12), draws_of(3)):
        raise MemoryError
    assert torch.equal(embedding(ids), before)


def test_contexts_do_not_pile_up(embedding: torch.nn.Embedding) -> None:
    """One context for each micro-batch of a run: the bound is that of a single noise."""
    for _ in range(20):
        added = noise(embedding, sizes_of(12))
    assert float(added.abs().max()) <= ALPHA / math.sqrt(LENGTHS[0] * WIDTH) + 1e-6


def test_without_alpha_nothing_changes_and_no_number_is_drawn(
    embedding: torch.nn.Embedding,
) -> None:
    ids, draws = torch.full((3, 12), 4), draws_of(3)
    with embedding_noise(embedding, None, sizes_of(12), draws):
        assert torch.equal(embedding(ids), embedding(ids))
    assert draws.count == 0


def test_the_torch_stream_is_left_alone(embedding: torch.nn.Embedding) -> None:
    before = torch.get_rng_state()
    noise(embedding, sizes_of(12))
    assert torch.equal(before, torch.get_rng_state())


def test_noise_keeps_the_format_of_the_embeddings(embedding: torch.nn.Embedding) -> None:
    half = embedding.bfloat16()
    with embedding_noise(half, ALPHA, sizes_of(12), draws_of(3)):
        assert half(torch.full((3, 12), 4)).dtype == torch.bfloat16


def test_gradients_reach_the_embeddings_unchanged(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    with embedding_noise(embedding, ALPHA, sizes_of(12), draws_of(3)):
        embedding(ids).sum().backward()
    assert embedding.weight.grad is not None
    assert torch.equal(embedding.weight.grad[4], torch.full((WIDTH,), 36.0))
