"""What DeepSpeed is told."""

import pytest
import torch

from peftune.engines.deepspeed_zero import LARGEST_BUCKET, whole_numel, zero_config
from peftune.engines.engine import StepShape

SHAPE = StepShape(per_device_batch_size=2, micro_batches=4, max_grad_norm=1.0, precision="bf16")
LAUNCHED = {
    "zero_optimization": {"stage": 2},
    "train_batch_size": "auto",
    "bf16": {"enabled": True},
}


@pytest.mark.parametrize(("trained", "bucket"), [(1000, 1000), (10**10, LARGEST_BUCKET), (0, 1)])
def test_the_bucket_of_an_exchange_is_no_larger_than_its_gradients(
    trained: int, bucket: int
) -> None:
    told = zero_config(LAUNCHED, SHAPE, trained)
    assert told["zero_optimization"] == {"stage": 2, "reduce_bucket_size": bucket}


def test_the_numbers_of_the_recipe_stand_over_those_of_the_launcher() -> None:
    told = zero_config(LAUNCHED, SHAPE, 1000)
    assert told["gradient_accumulation_steps"] == 4 and told["gradient_clipping"] == 1.0
    assert "train_batch_size" not in told and "bf16" not in told
    assert told["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}


def test_a_parameter_in_shards_counts_whole() -> None:
    whole, shard = torch.nn.Parameter(torch.zeros(6)), torch.nn.Parameter(torch.zeros(0))
    vars(shard)["ds_numel"] = 10
    assert whole_numel([("whole", whole), ("shard", shard)]) == 16
