"""What one run leaves behind, opened by a process that knows nothing of peftune."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from peftune.cli import report_errors, train_recipe
from tests.conftest import answered_otherwise, write_recipe
from tests.launching import environment

# Logits of the adapter on its base, and of the merged model, for one prompt.
OPENER = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

run, base = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(run)
inputs = tokenizer("Mia: Can I have a map?\\nSummary:", return_tensors="pt")
frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
with torch.no_grad():
    plain = frozen(**inputs).logits
    adapted = PeftModel.from_pretrained(frozen, run).eval()(**inputs).logits
    merged = AutoModelForCausalLM.from_pretrained(f"{run}/merged")(**inputs).logits
print(json.dumps({
    "peftune": "peftune" in sys.modules,
    "merged": float((adapted - merged).abs().max()),
    "base": float((adapted - plain).abs().max()),
}))
"""


def train(folder: Path, tree: dict[str, Any], *overrides: str) -> Path:
    """`peftune train` in a process of its own; returns the run's folder."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    train_file(folder / "recipe.yaml", *overrides)
    return Path(tree["output_dir"])


def train_file(recipe: Path, *overrides: str) -> None:
    command = [str(Path(sys.executable).parent / "peftune"), "train", recipe.name, *overrides]
    folder = recipe.parent
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def opened(run: Path, base: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", OPENER, str(run), base],
        cwd=run,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), id="lora"),
        pytest.param(("adapter.init_lora_weights=pissa",), id="pissa", marks=pytest.mark.thorough),
        pytest.param(("adapter={method: dora, r: 4}",), id="dora", marks=pytest.mark.thorough),
    ],
)
def test_adapter_and_merged_model_agree_in_a_fresh_process(
    overrides: tuple[str, ...], tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    run = train(tmp_path, recipe_tree, *overrides)
    found = opened(run, recipe_tree["model"]["model_name_or_path"])
    assert not found["peftune"]
    assert found["merged"] < 1e-5
    assert found["base"] > 1e-2


def test_the_records_of_a_run(tmp_path: Path, recipe_tree: dict[str, Any]) -> None:
    """Steps, totals and results agree with each other, and nothing half written is left."""
    run = train(tmp_path, recipe_tree, "train.save_steps=3", "train.report_to=[tensorboard]")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "eval_loss" in line] == [3, 6]
    results = json.loads((run / "train_results.json").read_text())
    nll_sum = sum(line["loss"] * line["target_tokens"] for line in steps)
    targets = sum(line["target_tokens"] for line in steps)
    assert results["train_loss"] == pytest.approx(nll_sum / targets)
    assert results["train_target_tokens"] == targets
    scores = json.loads((run / "eval_results.json").read_text())
    assert scores["adapted"]["loss"] < scores["base"]["loss"]
    assert json.loads((run / "all_results.json").read_text()) == {**results, **scores}
    assert len((run / "predictions.jsonl").read_text().splitlines()) == scores["examples"] == 7
    assert sorted(entry.name for entry in run.glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-6",
    ]
    assert not list(run.rglob("*.partial"))
    assert list(run.rglob("events.out.tfevents.*"))


@pytest.mark.thorough
def test_the_resolved_recipe_repeats_the_run(tmp_path: Path, recipe_tree: dict[str, Any]) -> None:
    first = train(tmp_path, recipe_tree, "adapter.lora_dropout=0.2")
    second = tmp_path / "again"
    train_file(first / "recipe.yaml", f"output_dir={second}")
    ours, theirs = (load_file(run / "adapter_model.safetensors") for run in (first, second))
    assert all(ours[name].equal(theirs[name]) for name in ours | theirs)
    predictions = [(run / "predictions.jsonl").read_text() for run in (first, second)]
    assert predictions[0] == predictions[1]


@pytest.mark.thorough
def test_the_best_adapter_is_the_one_that_stays(
    tmp_path: Path, recipe_tree: dict[str, Any], data_folder: Path
) -> None:
    """Each step makes the held-out rows less likely, so the end must be the start."""
    tree = answered_otherwise(recipe_tree, data_folder, tmp_path)
    fast = ("train.learning_rate=0.01", "train.lr_scheduler_type=constant", "train.eval_steps=1")
    patience = ("train.early_stopping_patience=3", "train.max_steps=12", "train.save_steps=1")
    run = train(tmp_path, tree, *fast, *patience, "train.load_best_model_at_end=true")
    state = json.loads((run / "trainer_state.json").read_text())
    best = state["best_global_step"]
    assert state["global_step"] == best + 3 < 12
    final = load_file(run / "adapter_model.safetensors")
    kept = load_file(run / f"checkpoint-{best}" / "adapter_model.safetensors")
    assert all(final[name].equal(kept[name]) for name in final | kept)


def test_answers_that_cannot_fit_end_a_run_before_its_first_step(
    tmp_path: Path, recipe_tree: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The test split is written on at the end, when it is too late to say so."""
    file = write_recipe(tmp_path, recipe_tree)
    too_many = ["evaluation.max_new_tokens=100000"]
    assert report_errors(False, train_recipe, str(file), too_many) == 2
    assert "evaluation.max_new_tokens: 100000 after a prompt of" in capsys.readouterr().err
    assert not (Path(recipe_tree["output_dir"]) / "metrics.jsonl").exists()
