"""Each key is read in a run, or refused when somebody sets it: nothing lies between."""

from pathlib import Path
from typing import Any

import pytest

from peftune.compatibility import check_recipe
from peftune.engines.launch import read_launch
from peftune.errors import RecipeError
from peftune.pipeline import run
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import load_recipe
from peftune.resolved import origins
from tests.conftest import write_recipe
from tests.reading import recorded_reads

LONG_ENOUGH = {"max_length": 160}
PROMPTS = {
    "columns": {"completion": "summary"},
    "prompt_template": "{dialogue}\nSummary:",
    **LONG_ENOUGH,
}
WRITES = {"evaluation": {"max_new_tokens": 2}}
RUNS: dict[str, tuple[str, str, str, dict[str, Any], dict[str, Any]]] = {
    "causal": ("summarize", "llama", "data_folder", PROMPTS, WRITES),
    "chat": ("chat", "llama", "chat_folder", {**LONG_ENOUGH, "train_on": "last"},
             {**WRITES, "adapter": {"method": "dora", "r": 4}}),
    "seq2seq": ("translate", "t5", "data_folder", PROMPTS, {**WRITES, "adapter": {"method": "ia3"}}),
    "quantized": ("qa", "llama", "data_folder", PROMPTS, {
        **WRITES, "quantization": {"method": "bnb-nf4"}, "export": {"merge_base": "dequantized"}}),
    "learnt text": ("text", "llama", "data_folder", {"columns": {"text": "dialogue"}, **LONG_ENOUGH}, {}),
    "masked": ("text", "bert", "data_folder", {"columns": {"text": "dialogue"}, **LONG_ENOUGH}, {}),
    "corrupted": ("text", "bart", "data_folder", {"columns": {"text": "dialogue"}, **LONG_ENOUGH}, {}),
    "label": ("classify", "bert", "labelled_folder", LONG_ENOUGH, {}),
    "labels": ("classify", "t5", "labelled_folder", {"columns": {"label": "labels"}, **LONG_ENOUGH}, {}),
    "value": ("classify", "llama", "labelled_folder", {"columns": {"label": "value"}, **LONG_ENOUGH}, {}),
    "tags": ("tag", "bert", "tagged_folder", LONG_ENOUGH, {}),
    "span": ("extract", "bert", "asked_folder", {**LONG_ENOUGH, "doc_stride": 64}, {}),
}  # fmt: skip
"""Task, model, data and further keys, so that every objective, adapter and kind of row is there."""
USED_BY_A_CHECK = {"overwrite_output_dir", "data.accept"}
"""To be checked is what these are for: the first, whether a folder may be replaced; the second, how
many rows may fail a gate, and it is not looked at where none does."""
BETWEEN_RANKS = {f"ranks.{key}" for key in ("wait_s", "silent_s", "stalled_s", "min_bandwidth")}
"""One process waits for nobody."""
SAMPLES = {
    "adapter.feedforward_modules": "[wo]",
    "data.chat_template": "tokenizer",
    "data.doc_stride": "32",
    "data.labels": "[a, b]",
    "data.mlm_probability": "0.3",
    "data.overlong": "drop",
    "data.problem_type": "regression",
    "data.prompt_template": "'{text}!'",
    "data.source_language": "de_DE",
    "data.target_language": "de_DE",
    "data.train_on": "all",
    "evaluation.max_answer_tokens": "7",
    "evaluation.max_new_tokens": "7",
    "evaluation.num_beams": "3",
    "train.early_stopping_patience": "4",
    "resume.allow": "[seed]",
    "train.label_smoothing_factor": "0.1",
    "train.neftune_noise_alpha": "5.0",
    "train.save_total_limit": "3",
}
"""A value for each key that some run does not read."""


def refused(path: Path, override: str) -> bool:
    """Whether a recipe with the override ends before a model is loaded."""
    try:
        recipe = load_recipe(path, [override, f"output_dir={path.parent / 'other'}"])
        check_recipe(recipe, read_launch({}))
        plan_for(recipe, len(prepare_data(recipe).rows["train"]), 1)
    except RecipeError as error:
        return override.partition("=")[0].split(".")[-1] in str(error)
    return False


@pytest.mark.parametrize("name", RUNS)
def test_a_key_is_read_or_refused(
    name: str,
    models: dict[str, Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Tokens that are there already would not be made again.
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("peftune.evaluation.metrics.RESAMPLES", 20)
    task, model, folder, data, more = RUNS[name]
    source = Path(request.getfixturevalue(folder))
    if task == "chat":
        data = {**data, "chat_template": str(source / "chat.jinja")}
    tree = {
        "task": task,
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(models[model]), "dtype": "float32"},
        "data": {"path": str(source), **data},
        "adapter": {"method": "lora", "r": 4},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": 1.0e-3, "eval_steps": 1},
        **more,
    }
    path = write_recipe(tmp_path, tree)
    recipe = load_recipe(path)
    check_recipe(recipe, read_launch({}))
    with recorded_reads(recipe) as reads:
        run(recipe, read_launch({}))
    set_here = {".".join(key) for key, origin in origins(recipe).items() if origin != "default"}
    assert set_here - USED_BY_A_CHECK <= reads
    keys = {".".join(key) for key in origins(recipe)}
    lost = [
        key
        for key in sorted(keys - reads - USED_BY_A_CHECK - BETWEEN_RANKS)
        if key not in SAMPLES or not refused(path, f"{key}={SAMPLES[key]}")
    ]
    assert lost == []
