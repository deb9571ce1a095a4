"""Several LoRA adapters of one base become one, by peft's own definitions."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from peftune.errors import ModelError
from peftune.export.adapter import CONFIG_FILE, WEIGHTS_FILE
from peftune.export.places import check_places
from peftune.untrusted.adapter import check_adapter

COMBINED = "combined"
KINDS = (
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
"""`cat` is exact and adds ranks; `svd` is the nearest of the largest rank; `linear` adds A and B apart.
TIES: Yadav et al. 2023, arXiv:2306.01708. DARE: Yu et al. 2023, arXiv:2311.03099."""
DENSE = ("linear", "cat", "svd")
"""Those that keep every number, and so read no density."""


def combine(
    skeleton: PreTrainedModel,
    weights: Mapping[Path, float],
    kind: str,
    density: float | None,
    out: Path,
) -> None:
    """Write the adapter that `weights` of the adapters in these folders make, as peft loads it.

    `density` is the share of numbers that TIES, DARE and pruning keep; DARE draws them, from seed 0.
    `skeleton` is their base on the meta device. Raises ModelError.
    """
    check_combination(weights, kind, density)
    for folder in weights:
        check_places(skeleton, folder)
    model, names = all_loaded(skeleton, [*weights]), [f"adapter{i}" for i in range(len(weights))]
    torch.manual_seed(0)
    model.add_weighted_adapter(names, [*weights.values()], COMBINED, kind, density=density)
    model.save_pretrained(str(out), selected_adapters=[COMBINED])
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        shutil.move(out / COMBINED / name, out / name)
    shutil.rmtree(out / COMBINED)


def check_combination(weights: Mapping[Path, float], kind: str, density: float | None) -> None:
    """Raise ModelError for adapters that peft would combine wrongly, or not at all."""
    if kind not in KINDS:
        raise ModelError(f"--combination: {kind} is none of {', '.join(KINDS)}.")
    if (density is None) != (kind in DENSE):
        verb = "needs" if density is None else "reads no"
        raise ModelError(f"--density: {kind} {verb} density, the share of numbers that is kept.")
    for folder in weights:
        check_adapter(folder)
        config: Any = PeftConfig.from_pretrained(str(folder))
        if config.peft_type != "LORA" or config.use_dora:
            raise ModelError(
                f"{folder}: only LoRA adapters can be combined, not {method_of(config)}."
            )
        if config.modules_to_save or config.bias != "none":
            raise ModelError(
                f"{folder}: it trained modules in full (modules_to_save, bias), which cannot be combined."
            )


def method_of(config: Any) -> str:
    return "DoRA" if config.peft_type == "LORA" else str(config.peft_type.value)


def all_loaded(skeleton: PreTrainedModel, folders: list[Path]) -> Any:
    """The base with all adapters; its own weights take no memory, as one number stands for each."""
    for module in skeleton.modules():
        for name, parameter in [*module._parameters.items()]:
            if parameter is not None:
                same = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                module._parameters[name] = torch.nn.Parameter(same, requires_grad=False)
    model = PeftModel.from_pretrained(skeleton, str(folders[0]), adapter_name="adapter0")
    for index, folder in enumerate(folders[1:], start=1):
        model.load_adapter(str(folder), adapter_name=f"adapter{index}")
    return model
