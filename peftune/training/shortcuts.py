"""Computes less, and the same."""

from peft import PeftModel
from transformers import PreTrainedModel

from peftune.model import frozen_products, rms_norm, rotary
from peftune.model.first_tokens_proof import may_narrow
from peftune.model.unpadding import unpad
from peftune.training import gated_unit
from peftune.training.fused_lora import fuse
from peftune.training.supervised_head import supervise


def compute_fast(
    adapted: PeftModel,
    *,
    padding_free: bool,
    generates: bool,
    sharded: bool = False,
    gathers_weights: bool = False,
) -> PeftModel:
    """No padding, no tokens and scores that nobody reads; adapted layers, norms, rotations and gated
    units as one function each.

    `generates`: the model predicts tokens. `sharded`: weights are whole only while the part of the model
    that they belong to is computed (FSDP2). `gathers_weights`: each only while its own layer is called
    (ZeRO-3), so nothing else may compute with it.
    """
    base = adapted.get_base_model()
    assert isinstance(base, PreTrainedModel)
    if not gathers_weights:
        frozen_products.serve(base)
        fuse(adapted, keeps_inputs=sharded)
        gated_unit.serve(base)
        if not sharded:
            rms_norm.serve(base)
    rotary.serve(base)
    if padding_free:
        # ZeRO-3 gathers a layer's weights again where its output is used, which must be what it gave.
        unpad(base, first_tokens=not gathers_weights and may_narrow(base))
    if generates:
        supervise(base)
    return adapted
