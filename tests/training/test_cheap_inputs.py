"""What is computed again is what was computed, and only what is kept by nobody else."""

import pytest
import torch
from torch.nn import GELU, BatchNorm1d, Dropout, LayerNorm, Linear, Module, ReLU
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from peftune.training.cheap_inputs import Again, is_cheap, origin_of, remember_origins


@pytest.mark.parametrize("module", [LayerNorm(6), GELU(), LlamaRMSNorm(6), T5LayerNorm(6)])
def test_an_input_is_made_again(module: Module) -> None:
    module.requires_grad_(False)
    assert remember_origins(module) == 1
    x = torch.randn(4, 6, requires_grad=True)
    made = module(x)
    found, (source,) = origin_of(made)
    assert found == module.forward and source.data_ptr() == x.data_ptr()
    again = Again()
    first = again.input_of(found, source)
    assert torch.equal(first, made) and not first.requires_grad
    assert again.input_of(module.forward, source) is first


def test_a_small_part_does_not_hold_the_whole() -> None:
    rows = torch.randn(3, 7, 6)
    _, (first,) = origin_of(rows[:, 0])
    assert torch.equal(first, rows[:, 0])
    assert first.untyped_storage().nbytes() == first.nbytes
    _, (most,) = origin_of(rows[:, :5])
    assert most.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()


def test_a_changed_source_is_not_taken_for_the_old_one() -> None:
    module, again, x = GELU(), Again(), torch.randn(4, 6)
    first = again.input_of(module.forward, x)
    x.add_(1.0)
    assert not torch.equal(again.input_of(module.forward, x), first)


@pytest.mark.parametrize(
    "module", [ReLU(), Dropout(0.1), BatchNorm1d(6).requires_grad_(False), Linear(6, 6)]
)
def test_what_is_kept_dear_or_random_is_left_alone(module: Module) -> None:
    assert not is_cheap(module)


def test_a_norm_that_learns_is_left_alone() -> None:
    assert not is_cheap(LayerNorm(6))


def test_without_gradients_nothing_is_noted() -> None:
    module = GELU()
    remember_origins(module)
    made = module(torch.randn(4, 6))
    assert origin_of(made).made_by is None
