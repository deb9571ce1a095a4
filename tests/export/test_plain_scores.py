"""How an artefact is opened by libraries alone."""

import torch
from bitsandbytes.nn import Linear4bit

from peftune.export.plain_scores import compute_plainly


def test_four_bits_are_multiplied_as_in_training_on_every_processor() -> None:
    """A processor with AVX-512 BF16 would go to a kernel for inference, which rounds to bfloat16."""
    layer = Linear4bit(64, 64, bias=False, compute_dtype=torch.float32)
    layer.support_avx512bf16_for_cpu = True  # what bitsandbytes finds on such a processor
    model = torch.nn.Sequential(layer.to("cpu"), torch.nn.Linear(64, 2)).eval()
    compute_plainly(model)
    packed = layer.weight.data.clone()
    with torch.no_grad():
        model(torch.ones(3, 64))
    assert not layer.support_avx512bf16_for_cpu
    assert torch.equal(layer.weight.data, packed)
