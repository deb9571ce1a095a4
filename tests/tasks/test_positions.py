"""Tags of words and answers out of a context: train, evaluate, save, reload, merge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM, pipeline

from peftune.cli import report_errors, train_recipe
from peftune.engines.launch import read_launch
from peftune.merging import merge_proven
from peftune.pipeline import evaluate_run
from peftune.recipe import load_recipe
from peftune.sources import source_of_run
from tests.conftest import SIZES, asked_rows, write_recipe
from tests.tasks.test_models import reloaded_logits, scores, trained


@pytest.fixture(scope="session")
def roberta(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose tokenizer joins a pair by two tokens and has no token types."""
    folder = tmp_path_factory.mktemp("roberta")
    bpe = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    bpe.post_processor = processors.TemplateProcessing(
        single="<eos> $A <eos>",
        pair="<eos> $A <eos> <eos> $B <eos>",
        special_tokens=[("<eos>", 1)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    RobertaForMaskedLM(RobertaConfig(**SIZES, initializer_range=0.1)).save_pretrained(folder)
    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_tags_are_learnt(
    model: str, models: dict[str, Path], tagged_folder: Path, tmp_path: Path
) -> None:
    """Long rows are cut, and their words are all there again in the predictions."""
    data = {"path": str(tagged_folder), "max_length": 16, "overlong": "split"}
    run = trained(tmp_path, "tag", models[model], data)
    found = scores(run)
    assert found["adapted"]["f1"]["value"] > 0.9 > found["base"]["f1"]["value"]
    assert {"precision", "recall", "accuracy", "f1_LOC", "f1_PER"} < found["adapted"].keys()
    assert found["labels"] == ["O", "B-LOC", "B-PER", "I-LOC"]
    rows = lines(run)
    assert len(rows) == found["examples"] == 12
    for row in rows:
        assert len(row["words"]) == len(row["tags"]) == len(row["base"]) == len(row["adapted"])
    adapted, merged = reloaded_logits(run, models[model])
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)


def test_a_merged_tagger_names_its_tags(
    models: dict[str, Path], tagged_folder: Path, tmp_path: Path
) -> None:
    """The pipeline of transformers finds in running text what the evaluation found."""
    run = trained(tmp_path, "tag", models["bert"], {"path": str(tagged_folder), "max_length": 64})
    tagger = pipeline("token-classification", str(run / "merged"), aggregation_strategy="first")
    row = lines(run)[0]
    entities = tagger(" ".join(row["words"]))
    assert [entity["entity_group"] for entity in entities] == ["PER", "LOC"]
    assert entities[1]["word"].split() == row["words"][5:7]


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_answers_are_learnt(
    model: str, models: dict[str, Path], roberta: Path, asked_folder: Path, tmp_path: Path
) -> None:
    """From windows of long contexts, some of which do not answer."""
    base = {**models, "roberta": roberta}[model]
    data = {"path": str(asked_folder), "max_length": 48, "doc_stride": 12}
    run = trained(tmp_path, "extract", base, data)
    found = scores(run)
    assert found["adapted"]["f1"]["value"] > found["base"]["f1"]["value"] + 0.2
    assert {"has_answer_f1", "no_answer_exact_match"} < found["adapted"].keys()
    assert "labels" not in found
    rows = lines(run)
    assert len(rows) == found["examples"] == 12
    for row, asked in zip(rows, asked_rows(12, 66), strict=True):
        assert row["adapted"] in asked["context"]
        assert row["references"] == ([answer["text"] for answer in asked["answers"]] or [""])
    adapted, merged = reloaded_logits(run, base)
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["bnb-nf4", pytest.param("bnb-int8", marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(
    ("task", "model"), [("tag", "bert"), ("tag", "llama"), ("extract", "bert")]
)
def test_a_quantized_base_learns_positions(
    task: str,
    model: str,
    method: str,
    models: dict[str, Path],
    tagged_folder: Path,
    asked_folder: Path,
    tmp_path: Path,
) -> None:
    folder = tagged_folder if task == "tag" else asked_folder
    data = {"path": str(folder), "max_length": 160}
    quantized = {"quantization": {"method": method}, "export": {"merge_base": "dequantized"}}
    found = scores(trained(tmp_path, task, models[model], data, **quantized))
    assert found["adapted"]["loss"] < 0.9 * found["base"]["loss"]


@pytest.mark.parametrize("task", ["tag", "extract"])
def test_a_finished_run_is_measured_again(
    task: str, models: dict[str, Path], tagged_folder: Path, asked_folder: Path, tmp_path: Path
) -> None:
    folder = tagged_folder if task == "tag" else asked_folder
    data = {"path": str(folder), "max_length": 48, "doc_stride": 12}
    if task == "tag":
        del data["doc_stride"]
    run = trained(tmp_path, task, models["bert"], data)
    before = scores(run)
    (run / "eval_results.json").unlink()
    evaluate_run(load_recipe(run / "recipe.yaml"), read_launch({}), run)
    assert scores(run) == before
    source = source_of_run(load_recipe(run / "recipe.yaml"), run)
    merge_proven(source, run, tmp_path / "merged")
    again, first = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", run / "merged")
    )
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_smoothing_over_positions_is_refused(
    models: dict[str, Path], asked_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {
        "task": "extract",
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(models["bert"])},
        "data": {"path": str(asked_folder), "max_length": 160},
        "adapter": {"method": "lora"},
        "train": {
            "global_batch_size": 8,
            "max_steps": 1,
            "learning_rate": 1.0e-3,
            "label_smoothing_factor": 0.1,
        },
    }
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, tree)), []) == 2
    message = capsys.readouterr().err
    assert (
        "train.label_smoothing_factor: 0.1: it would spread the target over all tokens" in message
    )
