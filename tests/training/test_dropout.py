"""Dropout by rows takes the place of torch's, in all that a model calls, and of nothing else."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import M2M100Config, M2M100ForConditionalGeneration

from peftune.training.draws import RowDraws, row_draws
from peftune.training.dropout import draw_by_rows, dropout_from
from peftune.training.recomputation import checkpoint_contexts

SEED, STEP = 3, 0
Attention = dict[str, torch.Tensor]


def draws(rows: int = 2) -> RowDraws:
    return row_draws(SEED, STEP, {"row_ids": torch.arange(rows)[:, None]})


@pytest.fixture(autouse=True)
def untouched_stream() -> Iterator[None]:
    """Nothing here draws from torch's own stream, but what a test asks of it."""
    torch.manual_seed(0)
    yield


def test_a_share_is_dropped_and_the_rest_scaled() -> None:
    x = torch.ones(2, 50, 40)
    with dropout_from(draws()):
        dropped = functional.dropout(x, 0.25)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert torch.equal(dropped != 0, draws().kept(x, 0.25))


def test_modules_are_reached_and_eval_mode_drops_nothing() -> None:
    module, x = torch.nn.Dropout(0.5), torch.ones(2, 8, 8)
    with dropout_from(draws()):
        assert (module(x) == 0).any()
        assert torch.equal(module.eval()(x), x)
        assert torch.equal(functional.dropout(x, 0.0), x)


def test_outside_it_is_torch_again() -> None:
    x = torch.ones(2, 8, 8)
    with dropout_from(draws()):
        inside = functional.dropout(x, 0.5)
    torch.manual_seed(1)
    expected = functional.dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(functional.dropout(x, 0.5), expected)
    assert not torch.equal(inside, expected)


def test_torch_stream_is_not_used() -> None:
    before = torch.get_rng_state()
    with dropout_from(draws()):
        functional.dropout(torch.ones(2, 8, 8), 0.5)
        q = torch.ones(2, 2, 5, 4)
        functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    assert torch.equal(before, torch.get_rng_state())


def heads(tokens: int, count: int) -> torch.Tensor:
    return torch.randn(2, count, tokens, 8, dtype=torch.float64)


MASK = torch.ones(6, 6, dtype=torch.bool).tril(1)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": MASK},
        {"attn_mask": torch.zeros(6, 6, dtype=torch.float64).masked_fill(~MASK, -torch.inf)},
    ],
    ids=["plain", "causal", "scale", "mask", "bias"],
)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_is_that_of_torch_before_anything_is_dropped(
    how: dict[str, object], kv_heads: int
) -> None:
    q, k, v = heads(6, 4), heads(6, kv_heads), heads(6, kv_heads)
    shared = {"enable_gqa": kv_heads != 4}
    expected = functional.scaled_dot_product_attention(q, k, v, **how, **shared)  # type: ignore[arg-type]
    # So small a share that none of these few weights is dropped.
    with dropout_from(draws()):
        ours = functional.scaled_dot_product_attention(q, k, v, dropout_p=1e-12, **how, **shared)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected)


def test_attention_drops_weights_of_the_row() -> None:
    q, k, v = (heads(6, 4) for _ in range(3))
    with dropout_from(draws()):
        both = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    alone = row_draws(SEED, STEP, {"row_ids": torch.tensor([[1]])})
    with dropout_from(alone):
        one = functional.scaled_dot_product_attention(q[1:], k[1:], v[1:], dropout_p=0.5)
    torch.testing.assert_close(both[1:], one)
    assert not torch.allclose(both, functional.scaled_dot_product_attention(q, k, v))


def gradient(recompute: bool) -> torch.Tensor:
    weight = torch.eye(8, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x @ weight, 0.5)

    with dropout_from(draws()):
        x = functional.dropout(torch.ones(2, 4, 8), 0.5)
        for _ in range(2):
            x = (
                checkpoint(
                    layer, x, use_reentrant=False, context_fn=partial(checkpoint_contexts, False)
                )
                if recompute
                else layer(x)
            )
    x.square().sum().backward()
    assert weight.grad is not None
    return weight.grad


def test_a_recomputed_layer_drops_what_it_dropped_before() -> None:
    """The backward pass comes after the context, as in the train loop."""
    torch.testing.assert_close(gradient(recompute=True), gradient(recompute=False))


def test_layerdrop_is_switched_off() -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20}
    config = M2M100Config(**sizes, encoder_layerdrop=0.5, encoder_ffn_dim=8, decoder_ffn_dim=8)
    model = M2M100ForConditionalGeneration(config)
    draw_by_rows(model)
    assert all(vars(module).get("layerdrop", 0.0) == 0.0 for module in model.modules())
    assert model.config.encoder_layerdrop == 0.5, "what is saved stays as it was"
    model.train()
    before = torch.get_rng_state()
    with dropout_from(draws()):
        model(input_ids=torch.ones(2, 4).long(), decoder_input_ids=torch.ones(2, 3).long())
    assert torch.equal(before, torch.get_rng_state())
