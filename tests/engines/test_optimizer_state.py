"""Optimizer state out of one optimizer and into another, to the bit, in every form that it has."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, PagedAdamW32bit

from peftune.engines.engine import StepShape
from peftune.engines.optimizer_state import by_parameter, load_scale, scale_state
from peftune.engines.torch_step import TorchStep

KINDS = {
    "adamw_torch": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "adamw_torch_fused": lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    "adamw_bnb_8bit": lambda groups: AdamW8bit(groups, lr=0.01),
    "paged_adamw_32bit": lambda groups: PagedAdamW32bit(groups, lr=0.01),
}


class Step(TorchStep):
    """An engine of one process around a module."""

    def __init__(self, kind: str) -> None:
        ranks: Any = SimpleNamespace(is_main=True, device=torch.device("cpu"))
        super().__init__(ranks, StepShape(1, 1, 1.0, "no"))
        torch.manual_seed(0)
        module: Any = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Linear(96, 64))
        self.module = module
        matrices = [p for p in module.parameters() if p.dim() > 1]
        vectors = [p for p in module.parameters() if p.dim() == 1]
        self.optimizer = KINDS[kind]([{"params": vectors}, {"params": matrices}])

    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        self.module.load_state_dict(state)

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            row = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
            self.backward(self.module(row).square().sum())
            self.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_goes_on_to_the_bit(kind: str) -> None:
    whole, first, second = Step(kind), Step(kind), Step(kind)
    whole.train(0, 6)
    first.train(0, 3)
    moments = first.optimizer_state()
    second.restart(first.trainable_state())
    second.load_optimizer_state(moments)
    assert by_parameter(second.optimizer_state()).keys() == by_parameter(moments).keys()
    for name, value in second.optimizer_state().items():
        assert value.dtype == moments[name].dtype and torch.equal(value, moments[name]), name
    second.train(3, 6)
    for name, value in second.trainable_state().items():
        assert torch.equal(value, whole.trainable_state()[name]), name


def test_before_the_first_step_there_is_none() -> None:
    step = Step("adamw_torch")
    assert step.optimizer_state() == {}
    step.load_optimizer_state({})
    step.train(0, 1)


def test_the_loss_scale_comes_back() -> None:
    before = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    before.load_state_dict({**before.state_dict(), "_growth_tracker": 7})
    state = scale_state(before)
    after = torch.amp.GradScaler("cpu")
    load_scale(after, state)
    assert (after.get_scale(), after.state_dict()["_growth_tracker"]) == (2.0**9, 7)
    assert scale_state(torch.amp.GradScaler("cpu", enabled=False)) == {}
