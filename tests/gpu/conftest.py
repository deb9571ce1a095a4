"""One recipe for all tests on GPUs."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_recipe


@pytest.fixture(scope="session")
def gpu_recipe(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, data_folder: Path
) -> Path:
    """Eight fp32 steps with validations in the middle, on a Llama of two layers."""
    tree: dict[str, Any] = {
        "task": "summarize",
        "output_dir": "unused",
        "seed": 3,
        "model": {"model_name_or_path": str(model_folder), "dtype": "float32"},
        "data": {
            "path": str(data_folder),
            "columns": {"completion": "summary"},
            "prompt_template": "{dialogue}\nSummary:",
            "max_length": 128,
        },
        "adapter": {"method": "lora"},
        "train": {
            "per_device_train_batch_size": 2,
            "global_batch_size": 8,
            "max_steps": 8,
            "learning_rate": 3.0e-3,
            "eval_steps": 3,
        },
        "evaluation": {"max_new_tokens": 4},
    }
    return write_recipe(tmp_path_factory.mktemp("gpu"), tree)
