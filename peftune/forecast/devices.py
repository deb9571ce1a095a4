"""What a device has and does: stated by its makers, or by the person who asks."""

import re
from dataclasses import dataclass

from peftune.errors import LaunchError, did_you_mean

GIB = 2**30
FORM = re.compile(r"(\d+(?:\.\d+)?)GB(?::(\d+(?:\.\d+)?))?", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """One device. Rates are those on its data sheet; what training reaches of them is `reached`."""

    name: str
    kind: str
    """`cpu` or `cuda`."""
    memory: int
    """Bytes."""
    half_flops: float = 0.0
    """Operations per second of products in bfloat16, without sparsity; 0 where unknown."""
    full_flops: float = 0.0
    """The same in float32."""
    bandwidth: float = 0.0
    """Bytes per second between its memory and its processors."""
    link: float = 0.0
    """Bytes per second and direction to the other devices of a node."""
    network: float = 0.0
    """The same to other nodes, for each device."""
    latency: float = 30e-6
    """Seconds until a collective begins."""
    overhead: float = 8e-6
    """Seconds of the host for one call of a kernel."""
    reached: float = 0.7
    """Share of the stated rates that kernels reach."""


def _gpu(name: str, gib: int, half: float, full: float, gb_s: float, link: float) -> Device:
    """Rates in 10¹² operations and 10⁹ bytes per second. Nodes are linked by 400 Gb/s for each device
    where devices are linked by NVLink, and by 100 Gb/s elsewhere."""
    network = 50e9 if link > 100 else 12.5e9
    return Device(
        name, "cuda", gib * GIB, half * 1e12, full * 1e12, gb_s * 1e9, link * 1e9, network
    )


GPUS = {
    device.name: device
    for device in (
        _gpu("a10g", 24, 70, 31.5, 600, 32),
        _gpu("a100-40gb", 40, 312, 19.5, 1555, 300),
        _gpu("a100", 80, 312, 19.5, 2039, 300),
        _gpu("a6000", 48, 155, 38.7, 768, 32),
        _gpu("b200", 180, 2250, 80, 8000, 900),
        _gpu("h100", 80, 989, 67, 3350, 450),
        _gpu("h200", 141, 989, 67, 4800, 450),
        _gpu("l4", 24, 121, 30.3, 300, 32),
        _gpu("l40s", 48, 362, 91.6, 864, 32),
        _gpu("rtx3090", 24, 71, 35.6, 936, 32),
        _gpu("rtx4090", 24, 165, 82.6, 1008, 32),
    )
}
"""From the makers' data sheets."""


def device_named(text: str) -> Device:
    """A device of the table, or `24GB`, or `24GB:165` with its bfloat16 rate in TFLOP/s.

    Raises LaunchError.
    """
    name = text.lower()
    if name in GPUS:
        return GPUS[name]
    found = FORM.fullmatch(text)
    if found is None:
        raise LaunchError(
            f"--gpu: {text!r} is no device that is known.{did_you_mean(name, GPUS)} Give one of "
            f"{', '.join(GPUS)}, or its memory such as 24GB, or 24GB:165 with its bfloat16 rate in "
            "TFLOP/s."
        )
    memory, rate = float(found[1]), float(found[2] or 0)
    if memory <= 0:
        raise LaunchError(f"--gpu: {text!r} has no memory.")
    # A rate alone says little about the rest: 1 byte moved for 200 operations, as data sheets have it.
    half = rate * 1e12
    return Device(text, "cuda", int(memory * GIB), half, half / 8, half / 200, 32e9, 12.5e9)
