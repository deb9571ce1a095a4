"""Computes less, and the same."""

from peft import PeftModel
from transformers import PreTrainedModel

from peftune.model.unpadding import unpad
from peftune.model.wide_products import widen
from peftune.training.fused_lora import fuse
from peftune.training.supervised_head import supervise


def compute_fast(
    adapted: PeftModel, *, padding_free: bool, generates: bool, gathers_weights: bool
) -> PeftModel:
    """No padding, no scores that nobody reads, one function for each adapted layer.

    `generates`: the model predicts tokens. `gathers_weights`: the engine gathers a weight when its own
    layer is called (ZeRO-3), so nothing else may compute with it.
    """
    base = adapted.get_base_model()
    assert isinstance(base, PreTrainedModel)
    if not gathers_weights:
        widen(base)
        fuse(adapted)
    if padding_free:
        unpad(base)
    if generates:
        supervise(base)
    return adapted
