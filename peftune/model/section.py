"""The recipe's `model:` section."""

from typing import Literal

from peftune.section import Section

Dtype = Literal["float32", "bfloat16", "float16"]


class ModelSection(Section):
    """Which pretrained model is adapted and how its frozen weights are held."""

    model_name_or_path: str
    """Hub id, local folder, or one of the small models inside the package: `embedded:decoder`,
    `embedded:encoder`, `embedded:encoder-decoder`."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    dtype: Dtype = "bfloat16"
    """Number format of the frozen weights. The adapter itself is always trained in float32."""

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel. `flash_attention_2` needs a GPU and the flash-attn package."""

    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along."""
