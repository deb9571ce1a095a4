"""DoRA: the direction of a weight learns by LoRA, its magnitude by itself (arXiv:2402.09353)."""

from typing import TYPE_CHECKING, Literal

from peftune.adapters.lora import LowRankSection, low_rank_config

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


class DoraSection(LowRankSection):
    """LoRA plus one trainable magnitude for each output of each adapted layer."""

    method: Literal["dora"]
    """DoRA."""


def peft_config(section: DoraSection, model_type: str, task_type: str | None) -> "LoraConfig":
    """peft's configuration of DoRA."""
    return low_rank_config(section, task_type, use_dora=True)


def reset_magnitudes(model: "PeftModel") -> None:
    """Set each magnitude to the norm of its weight's rows, in float32 (arXiv:2402.09353, eq. 5).

    peft computes it in the weight's dtype: rounded to bfloat16 the untrained adapter would
    already rescale every output by up to 0.4 %. B is zero at the start and adds nothing.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            dora = layer.lora_magnitude_vector["default"]
            weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
            rows = weight.T if dora.fan_in_fan_out else weight
            dora.weight.data = torch.linalg.norm(rows, dim=1)
