"""accelerate's files: those of `accelerate_configs/`, written and read."""

from pathlib import Path

import pytest
import yaml

from peftune.errors import LaunchError
from peftune.forecast.launcher_file import (
    launcher_settings,
    planned_launch,
    planned_layout,
    write_launcher_file,
)
from tests.conftest import REPOSITORY

FILES = {
    "single_gpu": ("ddp", 1, False, 1),
    "ddp": ("ddp", 8, False, 1),
    "ddp_2x8": ("ddp", 16, False, 2),
    "zero1": ("zero1", 8, False, 1),
    "zero2_2x8": ("zero2", 16, False, 2),
    "zero3": ("zero3", 8, False, 1),
    "zero3_offload": ("zero3", 8, True, 1),
    "fsdp2": ("fsdp2", 8, False, 1),
    "fsdp2_offload_2x8": ("fsdp2", 16, True, 2),
}


@pytest.mark.parametrize("name", FILES)
def test_a_layout_has_the_file_that_ships(name: str, tmp_path: Path) -> None:
    engine, ranks, offload, nodes = FILES[name]
    shipped = REPOSITORY / "accelerate_configs" / f"{name}.yaml"
    launch = planned_launch(engine, ranks, offload)
    assert launcher_settings(launch, nodes) == yaml.safe_load(shipped.read_text())
    assert planned_layout(shipped) == (launch, nodes)
    write_launcher_file(tmp_path / "made.yaml", launch, nodes)
    assert planned_layout(tmp_path / "made.yaml") == (launch, nodes)


@pytest.mark.parametrize("text", ["a: [", "[]", "engine: ddp\n"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(LaunchError, match=r"^--config-file: "):
        planned_layout(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"gone\.yaml cannot be read"):
        planned_layout(tmp_path / "gone.yaml")
