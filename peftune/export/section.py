"""The recipe's `export:` section."""

from typing import Literal

from peftune.section import Section


class ExportSection(Section):
    """What is written besides the adapter."""

    merge: bool = True
    """Also write a merged model that loads without peft."""

    merge_base: Literal["original", "dequantized"] = "original"
    """Weights that a quantized run is merged into: the checkpoint's own, or the quantized ones
    that the adapter was trained against, turned back into plain numbers."""
