"""Versions and devices of this installation, and whether these versions were tested together."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "deepspeed",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "safetensors",
)
NOT_INSTALLED = "not installed"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


def versions() -> dict[str, str]:
    """Version of Python and of each package, or `not installed`; imports none of them."""
    return {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}


def installed(package: str) -> str:
    """Version of a package, or `not installed`; imports nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def pinned_versions(constraints: str) -> dict[str, str]:
    """The pinned version of each package in the text of a constraints file."""
    pins = (line.partition("==") for line in constraints.splitlines() if "==" in line)
    return {name.strip().lower(): pin.partition(";")[0].strip() for name, _, pin in pins}


def verdicts(found: Mapping[str, str], constraints: str) -> dict[str, str]:
    """Whether each installed package that the constraints pin has the version that was tested.

    A local build tag counts for nothing: 2.13.0+cpu is 2.13.0.
    """
    pins = pinned_versions(constraints)
    return {
        package: "tested: yes"
        if found[package].split("+")[0] == pins[package]
        else f"tested: no, {pins[package]} is"
        for package in found.keys() & pins.keys()
        if found[package] != NOT_INSTALLED
    }


def devices() -> list[str]:
    """A line for each device torch can compute on."""
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    lines = [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
    return [*lines, f"CPU, {torch.get_num_threads()} threads"]


def print_environment() -> None:
    """Print versions, each with its verdict, and devices."""
    found = versions()
    text = CONSTRAINTS.read_text(encoding="utf-8") if CONSTRAINTS.is_file() else ""
    verdict_of = verdicts(found, text)
    for package, installed in found.items():
        print(f"{package:14}{installed:16}{verdict_of.get(package, '')}".rstrip())
    for line in devices():
        print(line)
