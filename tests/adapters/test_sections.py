import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from peftune.adapters import AdapterSection, parameter_groups


def section(**keys):
    return TypeAdapter(AdapterSection).validate_python(keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "lora", "r": 0},
        {"method": "lora", "r": 8.0},
        {"method": "lora", "lora_dropout": 1.0},
        {"method": "lora", "target_modules": "q_proj"},
        {"method": "lora", "target_modules": []},
        {"method": "lora", "rank_pattern": {"q_proj": 0}},
        {"method": "lora", "rank_pattern": {"(q_proj": 8}},
        {"method": "lora", "loraplus_lr_ratio": 0.5},
        {"method": "lora", "init_lora_weights": "pisa"},
        {"method": "dora", "init_lora_weights": "pissa"},
        {"method": "ia3", "r": 8},
        {"method": "ia3", "target_modules": ["k_proj"]},
        {"method": "ia3", "target_modules": ["k_proj"], "feedforward_modules": ["down_proj"]},
        {"method": "adalora"},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(keys):
    with pytest.raises(ValidationError):
        section(**keys)


def test_loraplus_gives_b_matrices_a_multiple_of_the_learning_rate():
    parameters = _parameters()
    chosen = section(method="dora", loraplus_lr_ratio=16.0)
    groups = parameter_groups(chosen, parameters.items(), 1e-3, 0.1)
    settings = {
        name: (group["lr"], group["weight_decay"])
        for group in groups
        for name, parameter in parameters.items()
        if any(parameter is one for one in group["params"])
    }
    assert settings == {
        "q.lora_A.default.weight": (1e-3, 0.1),
        "q.lora_B.default.weight": (1.6e-2, 0.1),
        "q.lora_magnitude_vector.default.weight": (1e-3, 0.0),
        "q.ia3_l.default": (1e-3, 0.0),
    }
    assert groups[0]["lr"] == 1e-3


def test_without_loraplus_all_learn_alike():
    groups = parameter_groups(section(method="lora"), _parameters().items(), 1e-3, 0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.1), (1e-3, 0.0)]


def _parameters():
    shapes = {
        "q.base_layer.weight": (4, 4),
        "q.lora_A.default.weight": (2, 4),
        "q.lora_B.default.weight": (4, 2),
        "q.lora_magnitude_vector.default.weight": (4,),
        "q.ia3_l.default": (4, 1),
    }
    return {
        name: torch.nn.Parameter(torch.zeros(shape), requires_grad="base_layer" not in name)
        for name, shape in shapes.items()
    }
