"""Models and groups of ranks for the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.contract.groups import Group
from tests.contract.models import MODELS, save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models by name."""
    return {name: save_model(name, tmp_path_factory.mktemp(name)) for name in MODELS}


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Group]]:
    """The group of so many ranks, started when it is first asked for."""
    groups: dict[int, Group] = {}

    def of_size(world_size: int) -> Group:
        if world_size not in groups:
            groups[world_size] = Group(world_size, tmp_path_factory.mktemp("group"))
        return groups[world_size]

    yield of_size
    for started in groups.values():
        started.stop()


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are too small to share out, and the ranks need the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
