"""Folds an adapter into its base model: the result loads without peft."""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from peft import IA3Config, PeftModel
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file
from transformers import PreTrainedModel

from peftune.errors import ModelError, PeftuneError
from peftune.export.adapter import WEIGHTS_FILE, saved_name
from peftune.export.tensors import storing_tensors
from peftune.quantization import dequantize_model


def merge(
    adapter_folder: Path,
    load_base: Callable[[], PreTrainedModel],
    out: Path,
    merge_base: Literal["original", "dequantized"],
    dtype: torch.dtype,
) -> None:
    """Write the base model plus the adapter to `out`, which must not exist, as safetensors.

    `load_base` gives the model on the CPU: for `original` the checkpoint's own weights, for
    `dequantized` the quantized model, whose weights are turned back into plain numbers first.
    The sum is formed in float32 and rounded once to `dtype`. Written aside and renamed.
    Raises StorageError, ModelError when the adapter does not fit the base, and PeftuneError when the
    merge changes nothing or leaves the range of `dtype`.
    """
    base = load_base()
    if merge_base == "dequantized":
        dequantize_model(base)
    before = _checksums(base, dtype)
    for parameter in base.parameters():
        parameter.data = parameter.data.float()
    adapted = PeftModel.from_pretrained(base, str(adapter_folder), torch_device="cpu")
    _check_loaded(adapted, adapter_folder)
    _put_whole_modules(adapted)
    merged = adapted.merge_and_unload().to(dtype)
    _check_changed(merged, before, dtype)
    _write(merged, out)


def _put_whole_modules(model: PeftModel) -> None:
    """Put modules that were trained in full in the place of their originals.

    peft does it too, but for (IA)³ only where the module has a weight of its own: it fails for the
    pooler of an encoder. LoRA's way also keeps tied weights tied, so it stays.
    """
    if isinstance(model.peft_config["default"], IA3Config):
        for name, module in list(model.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):
                model.set_submodule(name, module.modules_to_save["default"])


def _checksums(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, int]:
    """CRC-32 of each weight's bytes in `dtype`: enough to see change without a second model."""
    return {
        name: zlib.crc32(tensor.to(dtype).contiguous().view(torch.uint8).numpy())
        for name, tensor in model.state_dict().items()
    }


def _check_loaded(model: PeftModel, folder: Path) -> None:
    """peft only warns about tensors it could not place."""
    in_model = {saved_name(name): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in load_file(folder / WEIGHTS_FILE).items():
        if name not in in_model or not torch.equal(in_model[name], tensor.float()):
            raise ModelError(f"{folder}: the base model has no place for the adapter's {name}.")


def _check_changed(model: PreTrainedModel, before: dict[str, int], dtype: torch.dtype) -> None:
    if _checksums(model, dtype) == before:
        raise PeftuneError(
            f"The merge changed nothing: in {dtype} every weight equals the base model's. "
            "The adapter is untrained, or its update is smaller than the rounding."
        )
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise PeftuneError(f"The merged {name} is not finite in {dtype}; set model.dtype.")


def _write(model: PreTrainedModel, out: Path) -> None:
    aside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with storing_tensors(out, model.state_dict().values()):
        model.save_pretrained(aside)
        os.replace(aside, out)
