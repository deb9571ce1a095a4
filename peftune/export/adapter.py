"""Writes the adapter folder in peft's own form."""

import copy
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig

from peftune.errors import PeftuneError, TrainingError
from peftune.export.tensors import save_tensors, storing_tensors
from peftune.records import sync_file
from peftune.untrusted.adapter import CONFIG_FILE, WEIGHTS_FILE


def save_adapter(
    folder: Path,
    config: PeftConfig,
    tensors: Mapping[str, torch.Tensor],
    base_model_name_or_path: str,
    revision: str | None = None,
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` for `PeftModel.from_pretrained`.

    `tensors` holds whole tensors by parameter name of the adapted model. Both files are written
    aside and renamed, the configuration last. Raises StorageError, TrainingError for values that are not
    finite, and PeftuneError for a tensor that is empty, as a shard of another rank would be.
    """
    _check_tensors(tensors)
    saved = {saved_name(name): tensor.contiguous() for name, tensor in tensors.items()}
    aside = folder / "adapter.partial"
    shutil.rmtree(aside, ignore_errors=True)
    with storing_tensors(folder / WEIGHTS_FILE, saved.values()):
        aside.mkdir(parents=True)
        save_tensors(aside / WEIGHTS_FILE, saved)
        _saved_config(config, base_model_name_or_path, revision).save_pretrained(str(aside))
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            sync_file(aside / name)
            os.replace(aside / name, folder / name)
        aside.rmdir()


def saved_name(parameter: str) -> str:
    """The key under which peft looks for a parameter: without the adapter's name.

    >>> saved_name("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight")
    'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'
    >>> saved_name("base_model.model.lm_head.modules_to_save.default.weight")
    'base_model.model.lm_head.weight'
    >>> saved_name("base_model.model.lm_head.lora_magnitude_vector.default.weight")
    'base_model.model.lm_head.lora_magnitude_vector'
    """
    name = parameter.replace(".modules_to_save.default.", ".")
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return re.sub(r"\.(lora_A|lora_B|ia3_l)\.default(?=\.|$)", r".\1", name)


def _check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    if not tensors:
        raise PeftuneError("The adapter has no tensors to save.")
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise PeftuneError(f"The adapter's tensor {name} is empty and was not saved.")
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"The adapter's tensor {name} is not finite and was not saved.")


def _saved_config(config: PeftConfig, base: str, revision: str | None) -> PeftConfig:
    """A copy that says what to load, ready for inference, its sets in a fixed order."""
    saved = copy.deepcopy(config)
    saved.base_model_name_or_path, saved.revision = base, revision
    saved.inference_mode = True
    for name, value in vars(saved).items():
        if isinstance(value, set):
            setattr(saved, name, sorted(value))
    return saved
