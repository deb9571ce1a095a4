"""Builds the optimizer that the recipe names, over the adapter's parameter groups."""

from typing import Any

import torch

from peftune.errors import LaunchError, ModelError
from peftune.training.section import TrainSection


def build_optimizer(section: TrainSection, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) in the variant `train.optim` names.

    Each group keeps its peak learning rate under `peak_lr`, since `lr` changes every step.
    Raises LaunchError for a bitsandbytes optimizer without a GPU, and ModelError without groups.
    """
    if not groups:
        raise ModelError("adapter: nothing to train; every one of its parameters is frozen.")
    for group in groups:
        group["peak_lr"] = group["lr"]
    options: dict[str, Any] = {
        "betas": (section.adam_beta1, section.adam_beta2),
        "eps": section.adam_epsilon,
    }
    match section.optim:
        case "adamw_torch":
            return torch.optim.AdamW(groups, **options)
        case "adamw_torch_fused":
            return torch.optim.AdamW(groups, fused=True, **options)
    return _bitsandbytes_optimizer(section, groups, options)


def _bitsandbytes_optimizer(
    section: TrainSection, groups: list[dict[str, Any]], options: dict[str, Any]
) -> torch.optim.Optimizer:
    if not torch.cuda.is_available():
        raise LaunchError(f"train.optim: {section.optim} needs a GPU; use adamw_torch.")
    from bitsandbytes import optim

    classes = {
        "adamw_bnb_8bit": optim.AdamW8bit,
        "paged_adamw_32bit": optim.PagedAdamW32bit,
        "paged_adamw_8bit": optim.PagedAdamW8bit,
    }
    return classes[section.optim](groups, **options)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give each group its share of the peak; returns the first group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[0]["lr"]
