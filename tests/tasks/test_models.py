"""Every task on every class of model that can do it: train, evaluate, save, reload, merge."""

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from transformers import AutoTokenizer, GenerationConfig
from transformers.models.auto import modeling_auto

from peftune.cli import report_errors, train_recipe
from peftune.engines.launch import read_launch
from peftune.objectives import MODEL_CLASSES, OBJECTIVES
from peftune.pipeline import evaluate_run
from peftune.recipe import load_recipe
from peftune.tasks import TASKS
from tests.conftest import write_recipe

CLASS_OF = {
    "bert": "encoder",
    "t5": "encoder-decoder",
    "bart": "encoder-decoder",
    "llama": "decoder",
}
KINDS = {"label": "label", "labels": "labels", "value": "value"}
TEXTS = [
    (task.name, model)
    for task in TASKS.values()
    for model, kind in CLASS_OF.items()
    if kind in task.objectives and OBJECTIVES[task.objectives[kind]].generates  # type: ignore[index]
]
QUANTIZED = ("bnb-nf4", pytest.param("bnb-int8", marks=pytest.mark.thorough))
WRITING = ("qa", "summarize", "translate", "instruct")
QUICK = {
    ("text", "bert"),
    ("text", "llama"),
    ("text", "t5"),
    ("chat", "llama"),
    ("qa", "llama"),
    ("instruct", "llama"),
    ("summarize", "t5"),
    ("translate", "t5"),
    ("label", "bert"),
    ("label", "llama"),
    ("label", "t5"),
    ("labels", "bert"),
    ("value", "llama"),
}
"""Each task, each kind of label and each class of models with each objective, at least once."""


def marked(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    """The pairs as parameters; those that repeat what others show are thorough."""
    return [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.thorough) for pair in pairs
    ]


LABELS = marked((kind, model) for kind in KINDS for model in CLASS_OF)
REFUSED = [
    (task.name, model)
    for task in TASKS.values()
    for model in ("bert", "t5", "llama")
    if CLASS_OF[model] not in task.objectives
]


@pytest.fixture
def folders(
    data_folder: Path, chat_folder: Path, tagged_folder: Path, asked_folder: Path
) -> dict[str, Path]:
    """The data of each task whose rows are not prompts."""
    own = {"chat": chat_folder, "tag": tagged_folder, "extract": asked_folder}
    return {**own, "": data_folder}


def text_data(task: str, folders: dict[str, Path]) -> dict[str, Any]:
    folder = folders.get(task, folders[""])
    data = {"path": str(folder), "max_length": 160}
    if task in ("tag", "extract"):
        return data
    if task == "chat":
        return {**data, "chat_template": str(folder / "chat.jinja")}
    if task == "text":
        return {**data, "columns": {"text": "dialogue"}}
    prompt = {"prompt_template": "{dialogue}\nSummary:"}
    return {**data, **prompt, "columns": {"completion": "summary"}}


def trained(folder: Path, task: str, model: Path, data: dict[str, Any], **sections: Any) -> Path:
    tree = {
        "task": task,
        "output_dir": str(folder / "run"),
        "seed": 3,
        "model": {"model_name_or_path": str(model), "dtype": "float32"},
        "data": data,
        "adapter": {"method": "lora", "r": 4, "lora_alpha": 8},
        "train": {
            "per_device_train_batch_size": 4,
            "global_batch_size": 8,
            "max_steps": 30,
            "learning_rate": 1.0e-2,
            "eval_steps": 20,
        },
        **({"evaluation": {"max_new_tokens": 4}} if TASKS[task].metrics else {}),
        **sections,
    }
    recipe = write_recipe(folder, tree)
    assert report_errors(True, train_recipe, str(recipe), []) == 0
    return folder / "run"


def scores(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "eval_results.json").read_text()))


def reloaded(run: Path, base: Path) -> tuple[Any, Any]:
    """The adapter by plain peft, and the merged model by plain transformers."""
    config = json.loads((run / "adapter_config.json").read_text())
    if config["task_type"] is None:
        # peft has no class of its own for it; the configuration names that of transformers.
        mapping = config["auto_mapping"]
        library = import_module(mapping["parent_library"])
        auto_class = library.__dict__[mapping["base_model_class"]]
    else:
        (name,) = {o.auto_class for o in OBJECTIVES.values() if o.task_type == config["task_type"]}
        auto_class = modeling_auto.__dict__[name]
    head: dict[str, Any] = {}
    if (run / "labels.json").is_file():
        head = {"num_labels": len(json.loads((run / "labels.json").read_text())["labels"])}
        head["pad_token_id"] = 0
    frozen = auto_class.from_pretrained(base, dtype=torch.float32, **head)
    adapted = PeftModel.from_pretrained(frozen, str(run)).eval()
    return adapted, auto_class.from_pretrained(run / "merged").eval()


def reloaded_logits(run: Path, base: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What both say to one text."""
    inputs = dict(AutoTokenizer.from_pretrained(run)("the tea was odd<eos>", return_tensors="pt"))
    models = reloaded(run, base)
    if models[1].config.is_encoder_decoder and not (run / "labels.json").is_file():
        inputs["decoder_input_ids"] = torch.tensor([[0, 5, 6]])
    with torch.no_grad():
        adapted, merged = (model(**inputs) for model in models)
    if "start_logits" in adapted:
        return both_ends(adapted), both_ends(merged)
    return adapted.logits, merged.logits


def predictions(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def generated(model: Any, run: Path, prompts: list[str]) -> list[str]:
    """Greedy continuations, one at a time, as a person would ask for them."""
    tokenizer = AutoTokenizer.from_pretrained(run)
    settings = GenerationConfig.from_pretrained(run)
    texts = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs, generation_config=settings, max_new_tokens=4)[0]
        new = ids if model.config.is_encoder_decoder else ids[inputs["input_ids"].shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


def both_ends(outputs: Any) -> torch.Tensor:
    return torch.stack((outputs.start_logits, outputs.end_logits))


@pytest.mark.parametrize(("task", "model"), marked(TEXTS))
def test_text_is_learnt(
    task: str, model: str, models: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained(tmp_path, task, models[model], text_data(task, folders))
    found = scores(run)
    assert found["adapted"]["loss"] < found["base"]["loss"] - 0.1
    adapted, merged = reloaded_logits(run, models[model])
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)
    for measures in (found["base"], found["adapted"]):
        for value in measures.values():
            assert not isinstance(value, dict) or value["low"] <= value["high"]
    if task in WRITING:
        rows = predictions(run)[:3]
        prompts = [f"{row['input']}\nSummary:" for row in rows]
        for loaded in reloaded(run, models[model]):
            assert generated(loaded, run, prompts) == [row["adapted"] for row in rows]


@pytest.mark.parametrize("method", QUANTIZED)
@pytest.mark.parametrize(
    ("task", "model"), [("summarize", "t5"), ("text", "bert"), ("text", "bart"), ("chat", "llama")]
)
def test_a_quantized_base_learns_text(
    task: str,
    model: str,
    method: str,
    models: dict[str, Path],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    quantized = {"quantization": {"method": method}, "export": {"merge_base": "dequantized"}}
    run = trained(tmp_path, task, models[model], text_data(task, folders), **quantized)
    assert scores(run)["adapted"]["loss"] < scores(run)["base"]["loss"] - 0.1
    assert (run / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize(("kind", "model"), LABELS)
def test_labels_are_learnt(
    kind: str, model: str, models: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    data = {"path": str(labelled_folder), "max_length": 64, "columns": {"label": kind}}
    run = trained(tmp_path, "classify", models[model], data)
    found = scores(run)
    assert found["adapted"]["loss"] < 0.9 * found["base"]["loss"]
    assert (
        found["labels"]
        == {
            "label": ["bad", "good", "odd"],
            "labels": ["bad", "good", "late", "odd"],
            "value": ["value"],
        }[kind]
    )
    rows = predictions(run)
    assert len(rows) == found["examples"] == 12
    adapted, merged = reloaded_logits(run, models[model])
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)
    config = json.loads((run / "merged" / "config.json").read_text())
    assert list(config["id2label"].values()) == found["labels"]


@pytest.mark.parametrize("method", QUANTIZED)
@pytest.mark.parametrize("model", ["bert", "t5", "llama"])
def test_a_quantized_base_learns_labels(
    model: str, method: str, models: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    data = {"path": str(labelled_folder), "max_length": 64}
    quantized = {"quantization": {"method": method}, "export": {"merge_base": "dequantized"}}
    found = scores(trained(tmp_path, "classify", models[model], data, **quantized))
    assert found["adapted"]["loss"] < 0.9 * found["base"]["loss"]


def test_pairs_of_texts(models: dict[str, Path], labelled_folder: Path, tmp_path: Path) -> None:
    columns = {"text": "question", "text_pair": "text"}
    data = {"path": str(labelled_folder), "max_length": 64, "columns": columns}
    found = scores(trained(tmp_path, "classify", models["llama"], data))
    assert found["adapted"]["accuracy"]["value"] > 0.9


@pytest.mark.parametrize("model", ["bert", "t5"])
def test_a_finished_run_is_measured_again(
    model: str, models: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    """The same numbers for both models, although the base's head was never saved."""
    data = {"path": str(labelled_folder), "max_length": 64}
    run = trained(tmp_path, "classify", models[model], data)
    before = scores(run)
    (run / "eval_results.json").unlink()
    evaluate_run(load_recipe(run / "recipe.yaml"), read_launch({}), run)
    assert scores(run) == before


def test_hidden_parts_are_the_same_whenever_a_run_is_measured(
    models: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    """And peft alone finds the class of a masked language model, for which it has no task type."""
    run = trained(tmp_path, "text", models["bert"], text_data("text", folders))
    before, recipe = scores(run), load_recipe(run / "recipe.yaml", ["evaluation.shown_samples=0"])
    assert set(before["adapted"]) == {"loss", "perplexity"}
    evaluate_run(recipe, read_launch({}), run)
    assert scores(run) == before
    inputs = AutoTokenizer.from_pretrained(run)("the tea was <mask>", return_tensors="pt")
    alone = AutoPeftModel.from_pretrained(run)
    assert type(alone.get_base_model()).__name__ == "BertForMaskedLM"
    merged = modeling_auto.AutoModelForMaskedLM.from_pretrained(run / "merged").eval()
    with torch.no_grad():
        found, expected = alone.eval()(**inputs).logits, merged(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ({"mlm_probability": 0.2}, "data.mlm_probability: 0.2: a decoder learns every token"),
        ({"train_on": "all"}, "data.train_on: all: this task's rows have no parts to choose from"),
    ],
)
def test_keys_that_mean_nothing_for_text_are_refused(
    data: dict[str, Any],
    answer: str,
    models: dict[str, Path],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = {
        "task": "text",
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(models["llama"])},
        "data": {**text_data("text", folders), **data},
        "adapter": {"method": "lora"},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": 1.0e-3},
    }
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, tree)), []) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and f": {answer}" in message


@pytest.mark.parametrize(("task", "model"), REFUSED)
def test_a_class_that_cannot_is_refused(
    task: str,
    model: str,
    models: dict[str, Path],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = {
        "task": task,
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(models[model])},
        "data": text_data(task, folders),
        "adapter": {"method": "lora"},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": 1.0e-3},
    }
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, tree)), []) == 2
    message = capsys.readouterr().err
    assert f"error: task: {task} needs a model that is" in message
    assert f"is {CLASS_OF[model]}." in message


def test_every_class_has_a_task() -> None:
    assert {kind for task in TASKS.values() for kind in task.objectives} == set(MODEL_CLASSES)


@pytest.mark.parametrize(
    ("model", "column", "keys", "answer"),
    [
        (
            "bert",
            "labels",
            {"data": {"problem_type": "single_label_classification"}},
            "data.columns: label: {train}:1 (train) has a list of labels, and one label is learnt.",
        ),
        (
            "bert",
            "label",
            {"data": {"labels": ["bad", "good", "odd", "odd"]}},
            "data.labels: a label is named twice.",
        ),
        (
            "bert",
            "labels",
            {"train": {"label_smoothing_factor": 0.1}},
            "train.label_smoothing_factor: 0.1: it spreads the target over labels",
        ),
        (
            "t5",
            "label",
            {"train": {"neftune_noise_alpha": 5.0}},
            "train.neftune_noise_alpha: 5.0: encoder and decoder share the embeddings",
        ),
    ],
)
def test_keys_that_would_be_lost_are_refused(
    model: str,
    column: str,
    keys: dict[str, dict[str, Any]],
    answer: str,
    models: dict[str, Path],
    labelled_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {"path": str(labelled_folder), "columns": {"label": column}, "max_length": 64}
    tree = {
        "task": "classify",
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(models[model])},
        "data": data | keys.get("data", {}),
        "adapter": {"method": "lora"},
        "train": {"global_batch_size": 8, "max_steps": 1, "learning_rate": 1.0e-3}
        | keys.get("train", {}),
    }
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, tree)), []) == 2
    answer = answer.replace("{train}", str(labelled_folder / "train.jsonl"))
    message = capsys.readouterr().err
    assert message.startswith("error: ") and answer in message
