"""The recipe's `export:` section."""

from typing import Literal

from peftune.section import Section


class ExportSection(Section):
    """What is written besides the adapter."""

    merge: bool = True
    """Also write a merged model that loads without peft."""

    merge_base: Literal["original", "dequantized"] | None = None
    """Weights that a quantized run is merged into: the checkpoint's own, or the quantized ones
    that the adapter was trained against, turned back into plain numbers. Without it the latter,
    which compute what was trained."""

    verify: bool = True
    """Open adapter and merged model in a fresh process without peftune, and fail when their scores
    for rows of the run are not those of training."""
