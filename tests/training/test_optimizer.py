"""The optimizer does what torch's AdamW does with the recipe's numbers, group by group."""

from typing import Any

import pytest
import torch

from peftune.adapters import parameter_groups
from peftune.adapters.ia3 import Ia3Section
from peftune.adapters.lora import LoraSection
from peftune.errors import LaunchError
from peftune.training.optimizer import build_optimizer, set_learning_rate
from peftune.training.section import TrainSection

NUMBERS = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1.0e-3}
BITSANDBYTES = ("adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit")


def section(**keys: Any) -> TrainSection:
    return TrainSection(global_batch_size=8, max_steps=4, learning_rate=1.0e-2, **keys)


def weights() -> list[torch.nn.Parameter]:
    """A matrix and a vector, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 4), (5,))]


def groups_of(matrix: torch.nn.Parameter, vector: torch.nn.Parameter) -> list[dict[str, Any]]:
    return [
        {"params": [matrix], "lr": 1.0e-2, "weight_decay": 0.3},
        {"params": [vector], "lr": 5.0e-2, "weight_decay": 0.0},
    ]


def five_steps(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Gradients of unequal size and changing sign."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for scale, parameter in zip((1.0, 1.0e-3), parameters, strict=True):
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_the_numbers_are_those_of_torch(optim: str) -> None:
    ours, theirs = weights(), weights()
    five_steps(build_optimizer(section(optim=optim, **NUMBERS), groups_of(*ours)), ours)
    reference = torch.optim.AdamW(groups_of(*theirs), betas=(0.8, 0.95), eps=1.0e-3)
    five_steps(reference, theirs)
    for our, their, start in zip(ours, theirs, weights(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(our, start, atol=1e-3)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_the_numbers_of_the_recipe_reach_every_group(optim: str) -> None:
    optimizer = build_optimizer(section(optim=optim, **NUMBERS), groups_of(*weights()))
    assert isinstance(optimizer, torch.optim.AdamW)
    names = ("betas", "eps", "lr", "weight_decay")
    settings = [tuple(group[name] for name in names) for group in optimizer.param_groups]
    assert settings == [((0.8, 0.95), 1e-3, 1e-2, 0.3), ((0.8, 0.95), 1e-3, 5e-2, 0.0)]
    assert {bool(group["fused"]) for group in optimizer.param_groups} == {optim.endswith("fused")}


@pytest.mark.parametrize("optim", BITSANDBYTES)
def test_bitsandbytes_without_a_gpu_is_refused(optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LaunchError) as refused:
        build_optimizer(section(optim=optim), groups_of(*weights()))
    assert str(refused.value) == f"train.optim: {optim} needs a GPU; use adamw_torch."


def test_the_learning_rate_follows_the_factor_and_groups_keep_their_ratio() -> None:
    optimizer = build_optimizer(section(), groups_of(*weights()))
    for factor in (0.1, 1.0, 0.25, 0.25, 0.0, 0.5):
        assert set_learning_rate(optimizer, factor) == pytest.approx(1.0e-2 * factor)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([1.0e-2 * factor, 5.0e-2 * factor])


def test_a_step_moves_by_the_rate_that_was_set() -> None:
    """The first AdamW step without decay moves each weight by the learning rate."""
    _, vector = parameters = weights()
    optimizer = build_optimizer(section(), groups_of(*parameters))
    set_learning_rate(optimizer, 0.5)
    vector.grad = torch.ones_like(vector)
    optimizer.step()
    torch.testing.assert_close(weights()[1] - vector, torch.full((5,), 2.5e-2))


def test_loraplus_keeps_its_ratio_through_the_schedule() -> None:
    named = {f"q.lora_{side}.default.weight": weights()[0] for side in "AB"}
    chosen = LoraSection(method="lora", loraplus_lr_ratio=16.0)
    optimizer = build_optimizer(section(), parameter_groups(chosen, named.items(), 1e-3, 0.0))
    for factor in (0.25, 1.0, 0.1):
        reported = set_learning_rate(optimizer, factor)
        plain, faster = optimizer.param_groups
        assert plain["params"][0] is named["q.lora_A.default.weight"]
        assert reported == plain["lr"] == pytest.approx(1e-3 * factor)
        assert faster["lr"] == pytest.approx(16 * plain["lr"])


def decayed(chosen: LoraSection | Ia3Section, **shapes: tuple[int, ...]) -> set[str]:
    """Names of the parameters that a step with a gradient of zero makes smaller."""
    named = {
        name.replace("__", "."): torch.nn.Parameter(torch.ones(shape))
        for name, shape in shapes.items()
    }
    optimizer = build_optimizer(section(), parameter_groups(chosen, named.items(), 1e-2, 0.5))
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name for name, parameter in named.items() if bool((parameter < 1).all())}


def test_only_matrices_decay() -> None:
    """Saved modules bring biases and norms; decay would pull a norm's gain of 1 to 0."""
    shapes = {
        "q__lora_A__default__weight": (2, 4),
        "q__lora_B__default__weight": (4, 2),
        "q__lora_magnitude_vector__default__weight": (4,),
        "lm_head__modules_to_save__default__weight": (9, 4),
        "lm_head__modules_to_save__default__bias": (9,),
        "norm__modules_to_save__default__weight": (4,),
    }
    assert decayed(LoraSection(method="lora"), **shapes) == {
        "q.lora_A.default.weight",
        "q.lora_B.default.weight",
        "lm_head.modules_to_save.default.weight",
    }


def test_ia3_factors_do_not_decay_whatever_their_shape() -> None:
    """They are vectors that peft stores as one row or one column; their neutral value is 1."""
    shapes = {"k__ia3_l__default": (4, 1), "down__ia3_l__default": (1, 8)}
    assert decayed(Ia3Section(method="ia3"), **shapes) == set()


def test_frozen_parameters_are_not_in_the_optimizer() -> None:
    frozen, trained = weights()
    frozen.requires_grad_(False)
    named = {"q.base_layer.weight": frozen, "q.lora_A.default.weight": trained}
    optimizer = build_optimizer(
        section(), parameter_groups(LoraSection(method="lora"), named.items(), 1e-3, 0.1)
    )
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == 1
    assert held[0] is trained
