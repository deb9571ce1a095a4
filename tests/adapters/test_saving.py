import pytest
import torch
from peft import LoraConfig

from peftune.adapters.saving import difference_config, difference_tensors


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_difference_of_two_updates_is_one_update_of_twice_the_rank(use_rslora):
    config = LoraConfig(
        r=3,
        lora_alpha=5,
        use_rslora=use_rslora,
        init_lora_weights="pissa",
        rank_pattern={"q": 2},
        alpha_pattern={"q": 7},
    )
    initial, trained = _pair(3), _pair(3)
    doubled = difference_config(config)
    tensors = difference_tensors(initial, trained, use_rslora)

    def update(pair, chosen):
        root = chosen.r**0.5 if use_rslora else chosen.r
        product = pair["q.lora_B.default.weight"] @ pair["q.lora_A.default.weight"]
        return product * chosen.lora_alpha / root

    expected = update(trained, config) - update(initial, config)
    torch.testing.assert_close(update(tensors, doubled), expected)
    assert doubled.init_lora_weights is True
    assert (doubled.rank_pattern, doubled.alpha_pattern) == ({"q": 4}, {"q": 14})
    assert torch.equal(tensors["head"], trained["head"])


def _pair(rank):
    return {
        "q.lora_A.default.weight": torch.randn(rank, 6, dtype=torch.float64),
        "q.lora_B.default.weight": torch.randn(4, rank, dtype=torch.float64),
        "head": torch.randn(2, 2),
    }
