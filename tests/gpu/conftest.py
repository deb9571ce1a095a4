"""One recipe for all tests on GPUs."""

from pathlib import Path

import pytest

from tests.conftest import summary_tree, write_recipe


@pytest.fixture(scope="session")
def gpu_recipe(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path
) -> Path:
    """Eight fp32 steps with validations in the middle, on a Llama of two layers."""
    tree = summary_tree(model_folder, data_folder)
    tree["adapter"] = {"method": "lora"}
    tree["train"] |= {"max_steps": 8, "learning_rate": 3.0e-3}
    return write_recipe(tmp_path_factory.mktemp("gpu"), tree)
