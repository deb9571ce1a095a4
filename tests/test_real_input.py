"""Pretrained models on real text: whether adapting them lowers the test loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_end_to_end import train

SUMMARIES: dict[str, Any] = {
    "task": "summarize",
    "data": {
        "columns": {"completion": "summary"},
        "prompt_template": "{dialogue}\n\nSummary:",
        "max_length": 512,
        "overlong": "drop",
        "max_train_samples": 96,
        "max_test_samples": 16,
    },
    "evaluation": {"max_new_tokens": 16},
}
STORIES: dict[str, Any] = {
    "task": "text",
    "data": {
        "max_length": 256,
        "overlong": "split",
        "max_train_samples": 200,
        "max_test_samples": 40,
    },
}
CASES = {
    "dialogues": ("qwen2-8m", "summarization_dialogsum", SUMMARIES),
    "stories": ("stories260K", "text_tinystories", STORIES),
}


def real_recipe(case: str, shared: Path, folder: Path) -> dict[str, Any]:
    model, data, tree = CASES[case]
    return {
        **tree,
        "output_dir": str(folder / "run"),
        "model": {"model_name_or_path": str(shared / "models" / model), "dtype": "float32"},
        "data": {**tree["data"], "path": str(shared / "data" / data)},
        "adapter": {"method": "lora", "r": 8, "lora_alpha": 16},
        "train": {
            "per_device_train_batch_size": 4,
            "global_batch_size": 8,
            "max_steps": 12,
            "learning_rate": 2.0e-3,
            "warmup_steps": 2,
        },
    }


@pytest.mark.parametrize("method", ["none", pytest.param("bnb-nf4", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("case", [pytest.param("dialogues", marks=pytest.mark.thorough), "stories"])
def test_a_pretrained_model_learns(
    case: str, method: str, shared_folder: Path, tmp_path: Path
) -> None:
    quantized = (f"quantization.method={method}",) if method != "none" else ()
    run = train(tmp_path, real_recipe(case, shared_folder, tmp_path), *quantized)
    scores = json.loads((run / "eval_results.json").read_text())
    assert scores["adapted"]["loss"] < scores["base"]["loss"] - 0.01
    assert (run / "merged" / "model.safetensors").is_file()
