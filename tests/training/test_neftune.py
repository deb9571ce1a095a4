"""NEFTune noise: as large as the paper says, on a row's own tokens only, and gone afterwards."""

import math

import pytest
import torch

from peftune.training.neftune import embedding_noise

VOCABULARY, WIDTH, ALPHA = 50, 16, 5.0
LENGTHS = (3, 7, 12)


@pytest.fixture
def embedding() -> torch.nn.Embedding:
    torch.manual_seed(0)
    return torch.nn.Embedding(VOCABULARY, WIDTH)


def mask_of(width: int) -> torch.Tensor:
    """Attention mask (3, width) of rows with 3, 7 and 12 tokens."""
    return (torch.arange(width) < torch.tensor(LENGTHS)[:, None]).long()


def noise(
    embedding: torch.nn.Module, mask: torch.Tensor, seed: int = 0, alpha: float | None = ALPHA
) -> torch.Tensor:
    """What is added to the embeddings (3, T, 16) of one and the same token."""
    ids = torch.full(mask.shape, 4)
    torch.manual_seed(seed)
    with torch.no_grad(), embedding_noise(embedding, alpha, mask):
        noisy = embedding(ids)
    return (noisy - embedding(ids)).detach()


def test_noise_fills_its_bounds_and_stays_inside(embedding: torch.nn.Embedding) -> None:
    """±alpha / sqrt(tokens * width); the largest of so many draws comes close to the bound."""
    added = noise(embedding, mask_of(12))
    for row, tokens in enumerate(LENGTHS):
        bound = ALPHA / math.sqrt(tokens * WIDTH)
        largest = float(added[row].abs().max())
        assert 0.9 * bound < largest <= bound + 1e-6


def test_noise_is_uniform_around_zero() -> None:
    """Mean 0 and variance bound²/3 within five standard errors."""
    embedding, mask = torch.nn.Embedding(VOCABULARY, 64), torch.ones(4, 100, dtype=torch.long)
    added = noise(embedding, mask).double() / (ALPHA / math.sqrt(100 * 64))
    count = added.numel()
    assert abs(float(added.mean())) < 5 * math.sqrt(1 / 3 / count)
    assert abs(float(added.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / count)


def test_padding_stays_as_it_is(embedding: torch.nn.Embedding) -> None:
    mask = mask_of(12)
    added = noise(embedding, mask)
    assert torch.equal(added[mask == 0], torch.zeros_like(added[mask == 0]))
    assert (added[mask == 1].abs().sum(dim=-1) > 0).all()


def test_padding_does_not_change_the_scale(
    embedding: torch.nn.Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every draw at the upper bound the noise is the scale itself."""
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, low, high: tensor.fill_(high))
    narrow, wide = noise(embedding, mask_of(12)), noise(embedding, mask_of(40))
    assert torch.equal(narrow, wide[:, :12])
    expected = ALPHA / math.sqrt(LENGTHS[0] * WIDTH)
    assert float(narrow[0, 0, 0]) == pytest.approx(expected, rel=1e-5)


def test_the_seed_decides(embedding: torch.nn.Embedding) -> None:
    mask = mask_of(12)
    assert torch.equal(noise(embedding, mask, seed=1), noise(embedding, mask, seed=1))
    assert not torch.equal(noise(embedding, mask, seed=1), noise(embedding, mask, seed=2))


def test_every_forward_pass_draws_anew(embedding: torch.nn.Embedding) -> None:
    mask, ids = mask_of(12), torch.full((3, 12), 4)
    with embedding_noise(embedding, ALPHA, mask):
        assert not torch.equal(embedding(ids), embedding(ids))


def test_nothing_is_left_after_the_context(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    before = embedding(ids)
    noise(embedding, mask_of(12))
    assert torch.equal(embedding(ids), before)


def test_nothing_is_left_after_an_error(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    before = embedding(ids)
    with pytest.raises(MemoryError), embedding_noise(embedding, ALPHA, mask_of(12)):
        raise MemoryError
    assert torch.equal(embedding(ids), before)


def test_contexts_do_not_pile_up(embedding: torch.nn.Embedding) -> None:
    """One context for each micro-batch of a run: the bound is that of a single noise."""
    for _ in range(20):
        added = noise(embedding, mask_of(12))
    assert float(added.abs().max()) <= ALPHA / math.sqrt(LENGTHS[0] * WIDTH) + 1e-6


def test_without_alpha_nothing_changes_and_no_number_is_drawn(
    embedding: torch.nn.Embedding,
) -> None:
    added = noise(embedding, mask_of(12), seed=5, alpha=None)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.count_nonzero(added) == 0
    assert torch.equal(after, torch.rand(1))


def test_noise_keeps_the_format_of_the_embeddings(embedding: torch.nn.Embedding) -> None:
    half = embedding.bfloat16()
    with embedding_noise(half, ALPHA, mask_of(12)):
        assert half(torch.full((3, 12), 4)).dtype == torch.bfloat16


def test_gradients_reach_the_embeddings_unchanged(embedding: torch.nn.Embedding) -> None:
    ids = torch.full((3, 12), 4)
    with embedding_noise(embedding, ALPHA, mask_of(12)):
        embedding(ids).sum().backward()
    assert embedding.weight.grad is not None
    assert torch.equal(embedding.weight.grad[4], torch.full((WIDTH,), 36.0))
