"""Checks of the weights: what learns, what must not change, what must be a number."""

from collections.abc import Iterator

import torch

from peftune.engines.engine import Engine
from peftune.quantization import quantization_scales
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial

CHUNK = {"cpu": 2**18}
"""Numbers that are looked at at once, so that checks take no memory worth mentioning: on a CPU as many
as its caches hold, elsewhere `LARGE_CHUNK`."""
LARGE_CHUNK = 2**24
NAMED = 3
"""Tensors that a message names."""


def targets(trial: Trial) -> Finding:
    """Every part of the adapter learns, and every module that the recipe names has one."""
    module = trial.engine.module
    adapter = [name for name, _ in module.named_parameters() if is_adapter(trial, name)]
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    frozen = [name for name in adapter if name not in learning]
    others = sorted(learning - set(adapter))
    numbers = {"adapter tensors": len(adapter), "learning": len(learning)}
    absent = [name for name in named_targets(trial) if not any(f".{name}." in n for n in adapter)]
    if absent:
        return Finding(
            numbers,
            f"no layer named {absent[0]} has an adapter; correct adapter.target_modules.",
        )
    if frozen or not adapter:
        return Finding(
            numbers,
            f"{len(frozen)} of {len(adapter)} adapter tensors are frozen and would never learn "
            f"({named(frozen)}); something sets requires_grad after the adapter is attached.",
        )
    if others:
        return Finding(
            numbers, f"{len(others)} weights of the base would be trained ({named(others)})."
        )
    return Finding(numbers)


def is_adapter(trial: Trial, name: str) -> bool:
    """Whether a parameter was added by peft: the method's own, or a module trained in full."""
    prefix = trial.engine.module.base_model.prefix
    return f".{prefix}" in name or ".modules_to_save.default." in name


def named_targets(trial: Trial) -> tuple[str, ...]:
    """Layers that the recipe names one by one."""
    wanted = trial.context.recipe.adapter.target_modules
    return () if wanted is None or wanted == "all-linear" else tuple(wanted)


def named(names: list[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def base_finite(trial: Trial) -> Finding:
    """Every base weight is a number, whether held as such or quantized."""
    bad = [name for name, tensor in base_numbers(trial) if not is_finite(tensor)]
    numbers = {"tensors": sum(1 for _ in base_numbers(trial)), "not finite": len(bad)}
    if bad:
        return Finding(
            numbers,
            f"{len(bad)} base weights hold NaN or infinity ({named(bad)}); load the checkpoint again, "
            f"or set a model.dtype with a wider range than {trial.context.recipe.model.dtype}.",
        )
    return Finding(numbers)


def base_numbers(trial: Trial) -> Iterator[tuple[str, torch.Tensor]]:
    """This rank's base weights that are plain numbers, and the scales of those that are not."""
    quantized: set[str] = set()
    if trial.context.recipe.quantization is not None:
        scales = quantization_scales(trial.engine.module)
        quantized = {f"{name.rpartition('.')[0]}.weight" for name in scales}
        yield from scales.items()
    for name, tensor in trial.engine.frozen_weights():
        # Packed bits may be kept in a floating type.
        if tensor.is_floating_point() and name not in quantized:
            yield name, tensor


def chunk_of(tensor: torch.Tensor) -> int:
    return CHUNK.get(tensor.device.type, LARGE_CHUNK)


def is_finite(tensor: torch.Tensor) -> bool:
    """Without a copy of the whole tensor."""
    return all(bool(part.isfinite().all()) for part in tensor.flatten().split(chunk_of(tensor)))


def checksums(engine: Engine) -> dict[str, int]:
    """A number for the bytes of this rank's part of each base weight, 64 bits.

    Two sums of the words of each chunk, plain and weighted by place, modulo 2**64: one changed bit
    always changes it.
    """
    return {name: checksum(tensor) for name, tensor in engine.frozen_weights()}


WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(tensor: torch.Tensor) -> int:
    total = 0
    words = tensor.contiguous().view(WORDS[tensor.element_size()]).flatten()
    chunk = chunk_of(words)
    places = torch.arange(1, 2 * min(chunk, max(len(words), 1)), 2, device=words.device)
    for part in words.split(chunk):
        part = part.long()
        weighted = int((part * places[: len(part)]).sum())
        total = (total * 31 + int(part.sum()) * 17 + weighted) % 2**64
    return total


def base_unchanged(trial: Trial) -> Finding:
    """The step that `memory` made left every base weight as it was, bit for bit."""
    numbers = {"tensors": sum(1 for _ in trial.engine.frozen_weights())}
    if not trial.changed:
        return Finding(numbers)
    return Finding(
        {**numbers, "changed": len(trial.changed)},
        f"one optimizer step changed {len(trial.changed)} base weights ({named(trial.changed)}); the "
        "saved adapter would not fit the original base.",
    )
