"""Merges as the pipeline does them, of models in folders."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peftune.export.merge import merge
from peftune.quantization import BACKENDS, Dequantizer


def skeleton(folder: Path, auto_class: Any = AutoModelForCausalLM) -> Any:
    with torch.device("meta"):
        return auto_class.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)


def merge_folders(
    adapter: Path,
    base: Path,
    out: Path,
    dtype: torch.dtype = torch.float32,
    quantization: Any = None,
    auto_class: Any = AutoModelForCausalLM,
) -> None:
    """`quantization` is the section of a base whose bits are merged into."""
    quantized = None
    if quantization is not None:
        name = str(dtype).removeprefix("torch.")
        keys = BACKENDS[quantization.method].load_kwargs(quantization, name, False)
        quantized = Dequantizer(skeleton(base, auto_class), keys["quantization_config"])
    files = sorted(base.glob("*.safetensors"))
    merge(adapter, skeleton(base, auto_class), files, out, dtype, lambda folder: None, quantized)
