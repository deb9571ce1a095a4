"""A gated unit between its layers as one function: the numbers of transformers, and less kept."""

from typing import Any

import pytest
import torch
from transformers import GemmaConfig, LlamaConfig
from transformers.models.gemma.modeling_gemma import GemmaMLP
from transformers.models.llama.modeling_llama import LlamaMLP

from peftune.training import gated_unit
from peftune.training.cheap_inputs import origin_of

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 24}
UNITS = {
    "silu": lambda: LlamaMLP(LlamaConfig(**SIZES)),
    "gelu": lambda: LlamaMLP(LlamaConfig(hidden_act="gelu", **SIZES)),
    "tanh gelu": lambda: GemmaMLP(GemmaConfig(hidden_activation="gelu_pytorch_tanh", **SIZES)),
}


def outcome(unit: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    made = unit(x)
    return made, *torch.autograd.grad(made.square().sum(), [x, *unit.parameters()])


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_those_of_the_class(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    unit = UNITS[name]().to(dtype)
    x = torch.randn(1, 7, 32, dtype=dtype, requires_grad=True)
    before = outcome(unit, x)
    assert gated_unit.serve(unit) == 1
    for ours, theirs in zip(outcome(unit, x), before, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_of_its_width_it_keeps_what_two_layers_made_and_no_more() -> None:
    unit, kept = UNITS["silu"]().requires_grad_(False), {}
    gated_unit.serve(unit)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-1] == 24 and tensor.dim() == 3:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unit(torch.randn(1, 7, 32, requires_grad=True))
    assert len(kept) == 2


def test_what_the_last_layer_reads_can_be_made_again() -> None:
    unit, read = UNITS["silu"](), []
    gated_unit.serve(unit)
    unit.down_proj.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    unit(torch.randn(1, 7, 32, requires_grad=True))
    made_by, sources = origin_of(read[0])
    assert made_by is gated_unit.by_silu and len(sources) == 2
    assert torch.equal(made_by(*sources), read[0])


def test_another_function_is_left_alone() -> None:
    class Doubled(LlamaMLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    class Explained(LlamaMLP):
        def forward(self, x: torch.Tensor, why: str) -> torch.Tensor:
            return super().forward(x)

    config = LlamaConfig(**SIZES)
    relu = LlamaMLP(LlamaConfig(hidden_act="relu", **SIZES))
    assert [gated_unit.serve(one) for one in (Doubled(config), Explained(config), relu)] == [0] * 3
