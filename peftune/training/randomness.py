"""Seeds as pure functions of what they are for, with no history."""

import hashlib
from contextlib import AbstractContextManager

import torch


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts; the same on every machine and in every process."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_initialisation(seed: int) -> None:
    """Every rank draws the same initial adapter."""
    torch.manual_seed(derived_seed(seed, "initialisation"))


def streams_as_before(device: torch.device) -> AbstractContextManager[None]:
    """Whatever is drawn inside, on the CPU and on this device, moves no stream of anybody else."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
