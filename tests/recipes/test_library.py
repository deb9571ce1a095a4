"""Every shipped recipe trains, reloads and merges on a toy of its own architecture."""

import json
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer
from transformers.models.auto import modeling_auto

from peftune.artefacts import load_frozen
from peftune.cli import report_errors, train_recipe
from peftune.compatibility import check_recipe
from peftune.engines.launch import Launch
from peftune.objectives import OBJECTIVES
from peftune.preparation import prepare_data
from peftune.recipe import Recipe, load_recipe
from peftune.tasks import TASKS
from tests.conftest import REPOSITORY
from tests.reading import recorded_reads
from tests.recipes.mutation import unchanging_keys
from tests.recipes.recipe_table import RECIPES
from tests.recipes.toy_data import write_splits
from tests.recipes.toy_models import TOYS, Toy

SCHEMA_LINE = "# yaml-language-server: $schema=../recipe.schema.json\n"
EXPERTS = {"experts", "base_layer"}
ENGINES = {"NO": "ddp", "MULTI_GPU": "ddp", "DEEPSPEED": "zero", "FSDP": "fsdp2"}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def launch_of(path: Path) -> tuple[Launch, list[str]]:
    """What the command in the recipe's second line asks for, and the script's arguments."""
    command = path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    arguments = launch_command_parser().parse_args(shlex.split(command)[2:])
    assert (REPOSITORY / arguments.training_script).is_file()
    config = load_config_from_file(str(REPOSITORY / arguments.config_file))
    engine = ENGINES[str(config.distributed_type).rpartition(".")[2]]
    if engine == "zero":
        engine += str(config.deepspeed_config["zero_stage"])
    launch = Launch(engine, config.num_processes, 0, False, True, False)
    return launch, arguments.training_script_args


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_fits_the_launcher_that_it_names(path: Path, tmp_path: Path) -> None:
    launch, arguments = launch_of(path)
    assert arguments == [name_of(path)]
    check_recipe(load_recipe(path, [f"output_dir={tmp_path}"]), launch)
    assert path.read_text(encoding="utf-8").startswith(SCHEMA_LINE)
    assert load_recipe(path).output_dir == f"outputs/{path.stem}"


def small(shipped: Recipe, model: Path, folder: Path) -> list[str]:
    """Overrides for what a CPU, two steps and a toy cannot take from a recipe; all else stays."""
    data = write_splits(shipped, folder / "data")
    overrides = {
        "model.model_name_or_path": model,
        "model.dtype": "float32",
        "data.path": data,
        "data.name": "null",
        "output_dir": folder / "run",
        "train.max_steps": 2,
        "train.num_train_epochs": "null",
        "train.per_device_train_batch_size": 4,
        "train.global_batch_size": 8,
        "train.per_device_eval_batch_size": 8,
        "train.mixed_precision": "no",
        "train.optim": "adamw_torch",
        "export.merge": "true",
    }
    if TASKS[shipped.task].metrics:
        overrides["evaluation.max_new_tokens"] = 3
    return [f"{key}={value}" for key, value in overrides.items()]


def placed(model: Path, folder: Path) -> list[str]:
    """Overrides for nothing but toys in place of model and data."""
    places = {"model.model_name_or_path": model, "data.path": folder / "data", "data.name": "null"}
    return [f"{key}={value}" for key, value in {**places, "output_dir": folder / "other"}.items()]


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_trains_and_merges_on_its_architecture(
    path: Path, toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tokens that are there already would not be made again, and their keys not be read.
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    shipped = load_recipe(path)
    toy, base = TOYS[shipped.model.model_name_or_path], toys(shipped.model.model_name_or_path)
    overrides = small(shipped, base, tmp_path)
    with recorded_reads(shipped) as reads:
        assert report_errors(True, train_recipe, str(path), overrides) == 0
    run = tmp_path / "run"
    assert unchanging_keys(path, placed(base, tmp_path), reads) == []
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in steps if "loss" in line]
    assert len(losses) == 2
    assert all(torch.isfinite(torch.tensor(losses)))
    check_layers(run, shipped, toy)
    check_learnt(load_recipe(path, overrides), toy)
    if shipped.quantization is None:
        pair = both_logits(run, base)
    else:
        pair = both_quantized_logits(load_recipe(path, overrides), run)
    torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


def check_layers(run: Path, shipped: Recipe, toy: Toy) -> None:
    """The adapter sits on the layers that the recipe names, and on no layer of another part."""
    found = set()
    for name in load_file(run / "adapter_model.safetensors"):
        if ".lora_A." in name:
            assert "vision" not in name
            found.add(name.partition(".lora_A.")[0].rsplit(".", 1)[-1])
    named = shipped.adapter.target_modules
    layers = toy.layers if named == "all-linear" else set(named)
    assert layers <= toy.layers
    # peft wraps the module that holds the experts once for each of its weights.
    assert found == layers | (
        EXPERTS if "target_parameters" in shipped.adapter.model_fields_set else set()
    )


def check_learnt(recipe: Recipe, toy: Toy) -> None:
    """What a row teaches is the answer and its end, character for character."""
    prepared = prepare_data(recipe)
    if not prepared.objective.generates or recipe.task == "text":
        return
    learnt = [token for token in prepared.rows["test"][0].labels if token != -100]
    answer = prepared.test_examples[0].completion
    text = prepared.tokenizer.decode(learnt)
    if recipe.task == "chat":
        row = json.loads((Path(str(recipe.data.path)) / "test.jsonl").read_text().splitlines()[0])
        answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
        assert text == "".join(one + toy.turn_end for one in answers)
    elif toy.turn_end:
        assert text.removeprefix(" ") == answer + toy.turn_end
    else:
        code = recipe.data.target_language or prepared.tokenizer.bos_token or ""
        assert text.removeprefix(code).strip() == answer + prepared.tokenizer.eos_token


def both_logits(run: Path, base: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the adapter by plain peft, and of the merged model by plain transformers."""
    auto_class, head = auto_class_of(run), {}
    if (run / "labels.json").is_file():
        names = json.loads((run / "labels.json").read_text())["labels"]
        head = {"num_labels": len(names)}
        merged_config = json.loads((run / "merged" / "config.json").read_text())
        assert list(merged_config["id2label"].values()) == names
    frozen = auto_class.from_pretrained(base, dtype=torch.float32, **head)
    adapted = PeftModel.from_pretrained(frozen, str(run))
    return logits(adapted, run), logits(auto_class.from_pretrained(run / "merged"), run)


def both_quantized_logits(recipe: Recipe, run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the adapter on the quantized base, and of its merge into the dequantized one."""
    frozen, _ = load_frozen(recipe, prepare_data(recipe).head, "cpu", sharded=False)
    adapted = PeftModel.from_pretrained(frozen, str(run))
    return logits(adapted, run), logits(auto_class_of(run).from_pretrained(run / "merged"), run)


def auto_class_of(run: Path) -> Any:
    config = json.loads((run / "adapter_config.json").read_text())
    if config["task_type"] is None:
        # peft has no class of its own for it; the configuration names that of transformers.
        mapping = config["auto_mapping"]
        return import_module(mapping["parent_library"]).__dict__[mapping["base_model_class"]]
    (name,) = {o.auto_class for o in OBJECTIVES.values() if o.task_type == config["task_type"]}
    return modeling_auto.__dict__[name]


def logits(model: Any, run: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(run)
    inputs = dict(tokenizer("Tom asks whether the tent is odd.", return_tensors="pt"))
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[2, 5, 6]])
    with torch.no_grad():
        found = model.eval()(**inputs)
    if "start_logits" in found:
        return torch.stack((found.start_logits, found.end_logits))
    return found.logits  # type: ignore[no-any-return]
