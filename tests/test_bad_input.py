"""What a person can get wrong, and the one line that answers: kind by kind, word for word."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from peftune.cli import report_errors, train_recipe
from peftune.compatibility import check_recipe
from peftune.engines.launch import Launch
from peftune.environment import NOT_INSTALLED
from peftune.errors import RecipeError
from peftune.recipe import Recipe
from tests.conftest import REPOSITORY, sentence_pairs, write_jsonl, write_recipe

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"}
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@dataclass(frozen=True)
class Mistake:
    """One kind of mistake, made on a valid recipe.

    `message`, `overrides` and `replaced` may name {folder} (the test's own), {recipe}, {model},
    {data}, {locked} (a folder nobody can write to) and {line} (where the replacement stands).
    """

    kind: str
    message: str
    overrides: tuple[str, ...] = ()
    replaced: tuple[str, str] | None = None
    """A piece of the recipe's text, and what stands there instead."""
    arrange: Callable[[Path, Path], object] = lambda folder, model: None
    """Puts files into the test's folder; also told where the valid model is."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the launcher says."""
    loads_model: bool = False
    """Whether the mistake shows only when the weights are there."""


def text_file(name: str, text: str) -> Callable[[Path, Path], object]:
    return lambda folder, _: (folder / name).write_text(text, encoding="utf-8")


def rows_file(name: str, *rows: dict[str, Any]) -> Callable[[Path, Path], object]:
    return lambda folder, _: write_jsonl(folder / name, list(rows))


def model_files(config: str, weights: str) -> Callable[[Path, Path], object]:
    """A model folder with this config.json and an empty file of weights."""

    def write(folder: Path, model: Path) -> None:
        (folder / "other").mkdir()
        (folder / "other" / "config.json").write_text(config, encoding="utf-8")
        (folder / "other" / weights).touch()

    return write


def sparse_recipe(folder: Path, model: Path) -> None:
    """100 MB on paper, nothing on the disk."""
    os.truncate(folder / "recipe.yaml", 100_000_000)


def cut_weights(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder / "other")
    (folder / "other" / "model.safetensors").write_bytes(b"short")


def earlier_files(folder: Path, model: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "thesis.tex").touch()


MISTAKES = [
    # The file and its keys.
    Mistake(
        "recipe file missing",
        "{recipe}: no such recipe file.",
        arrange=lambda folder, _: (folder / "recipe.yaml").unlink(),
    ),
    Mistake(
        "empty recipe file",
        "{recipe}: the file is empty; copy a recipe from recipes/ and change it.",
        arrange=text_file("recipe.yaml", "# nothing yet\n"),
    ),
    Mistake(
        "recipe is not a mapping",
        "{recipe}: a recipe is a list of `key: value` lines; this file is not.",
        arrange=text_file("recipe.yaml", "- task\n- model\n"),
    ),
    Mistake(
        "not YAML",
        "{recipe}:2: not valid YAML: mapping values are not allowed here.",
        arrange=text_file("recipe.yaml", "task: summarize\n  seed: 1\n"),
    ),
    Mistake(
        "YAML anchor bomb",
        "{recipe}:1: anchors and aliases (& and *) are not allowed in a recipe; write the value "
        "out.",
        arrange=text_file("recipe.yaml", BOMB),
    ),
    Mistake(
        "bottomless nesting",
        "{recipe}:1: nested deeper than 12 levels.",
        arrange=text_file("recipe.yaml", "a: " + "[" * 5000 + "]" * 5000),
    ),
    Mistake(
        "100 MB recipe",
        "{recipe}: 100,000,000 bytes; a recipe has at most 1,000,000. Data belongs in data.path.",
        arrange=sparse_recipe,
    ),
    Mistake(
        "recipe is not text",
        "{recipe}: not UTF-8 text (byte 6).",
        arrange=lambda folder, _: (folder / "recipe.yaml").write_bytes(b"task: \xff"),
    ),
    Mistake(
        "key set twice",
        "{recipe}:4: seed is set twice (first on line 3).",
        replaced=("seed: 3", "seed: 3\nseed: 4"),
    ),
    Mistake(
        "unknown key",
        "{recipe}:{line}: train.learning_rat: unknown key. Did you mean train.learning_rate?",
        replaced=("weight_decay: 0.0", "learning_rat: 0.1"),
    ),
    Mistake(
        "key of another toolkit",
        "{recipe}:{line}: train.lr: unknown key. peftune calls it train.learning_rate.",
        replaced=("weight_decay: 0.0", "lr: 0.1"),
    ),
    Mistake(
        "key in the wrong section",
        "{recipe}:{line}: train.max_length: unknown key. It belongs to data.max_length.",
        replaced=("weight_decay: 0.0", "max_length: 128"),
    ),
    Mistake(
        "wrong type",
        "{recipe}:{line}: train.max_steps: 'many': input should be a valid integer.",
        replaced=("max_steps: 6", "max_steps: many"),
    ),
    Mistake(
        "2e-4 read as text",
        "{recipe}:{line}: train.learning_rate: '2e-4' is text in YAML, not a number; write 2.0e-4.",
        replaced=("learning_rate: 0.01", "learning_rate: 2e-4"),
    ),
    Mistake(
        "unknown choice",
        "{recipe}:{line}: train.optim: 'adamw' is not one of 'adamw_torch', 'adamw_torch_fused', "
        "'adamw_bnb_8bit', 'paged_adamw_32bit' or 'paged_adamw_8bit'. Did you mean adamw_torch?",
        replaced=("weight_decay: 0.0", "optim: adamw"),
    ),
    Mistake(
        "required key missing",
        "{recipe}: train.learning_rate: required, but not set.",
        replaced=("learning_rate: 0.01", "warmup_ratio: 0.1"),
    ),
    Mistake(
        "bad override",
        "'seed': an override looks like section.key=value.",
        overrides=("seed",),
    ),
    Mistake(
        "override below a value",
        "'seed.first=1': seed is not a section, it is 3.",
        overrides=("seed.first=1",),
    ),
    Mistake(
        "overridden value out of range",
        "{recipe}: train.learning_rate: -1: input should be greater than 0.",
        overrides=("train.learning_rate=-1",),
    ),
    Mistake(
        "unknown task",
        "{recipe}:1: task: 'sumarize' is not a task. Did you mean summarize? The tasks are: "
        "classify, tag, extract, qa, summarize, translate, instruct, chat, text.",
        replaced=("task: summarize", "task: sumarize"),
    ),
    Mistake(
        "both of two exclusive keys",
        "{recipe}:{line}: train: give exactly one of global_batch_size and "
        "gradient_accumulation_steps.",
        replaced=("train:\n", "train:\n  gradient_accumulation_steps: 2\n"),
    ),
    Mistake(
        "neither of two exclusive keys",
        "{recipe}:{line}: train: give exactly one of global_batch_size and "
        "gradient_accumulation_steps.",
        replaced=(
            "train:\n  per_device_train_batch_size: 2\n  global_batch_size: 8\n",
            "train:\n  per_device_train_batch_size: 2\n",
        ),
    ),
    Mistake(
        "adapter rank 0",
        "{recipe}:{line}: adapter.r: 0: input should be greater than or equal to 1.",
        replaced=("r: 4", "r: 0"),
    ),
    Mistake(
        "unknown adapter method",
        "{recipe}:{line}: adapter.method: 'qlora' is not one of 'lora', 'dora', 'ia3'. Did you "
        "mean lora?",
        replaced=("method: lora", "method: qlora"),
    ),
    # Sections that contradict each other or the launcher.
    Mistake(
        "batch size not divisible by the ranks",
        "train.global_batch_size: 8 is not a multiple of 6 (2 rows per device × 3 devices). "
        "Use 6 or 12.",
        environ={"WORLD_SIZE": "3"},
    ),
    Mistake(
        "int8 with an engine that cannot",
        "quantization.method: bnb-int8 cannot be trained with FSDP2, which takes 8-bit weights apart "
        "from their scales; the nearest green cell has accelerate_configs/zero3.yaml (proven on CPU "
        "ranks only).",
        overrides=("quantization.method=bnb-int8",),
        environ=FSDP2,
    ),
    Mistake(
        "PiSSA on a quantized base",
        "adapter.init_lora_weights: pissa changes the base weights, which a quantized base cannot "
        "take; the nearest green cell has adapter.init_lora_weights: true.",
        overrides=("adapter.init_lora_weights=pissa", "quantization.method=bnb-nf4"),
    ),
    Mistake(
        "GPU config without a GPU",
        "accelerate config: asks for GPUs (ddp, 2 processes), but this machine has none. "
        "Use a file accelerate_configs/cpu*.yaml.",
        environ={"WORLD_SIZE": "2"},
    ),
    Mistake(
        "FSDP version 1",
        "accelerate config: fsdp_version: 1 is not supported; write fsdp_version: 2.",
        environ={**FSDP2, "FSDP_VERSION": "1"},
    ),
    Mistake(
        "another gradient accumulation in the accelerate config",
        "train.global_batch_size: 8 ({recipe}:{line}) takes 4 forward passes per step, but the "
        "launcher says 2 in "
        "deepspeed_config.gradient_accumulation_steps (ACCELERATE_GRADIENT_ACCUMULATION_STEPS); "
        "remove it there, as the recipe decides this.",
        environ={"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"},
        replaced=("global_batch_size: 8", "global_batch_size: 8 # rows"),
    ),
    Mistake(
        "a key that nothing reads",
        "{recipe}: train.save_total_limit: 3: no checkpoints are saved; set train.save_steps, or "
        "remove it.",
        overrides=("train.save_total_limit=3",),
    ),
    Mistake(
        "splitting rows that have a prompt",
        "data.overlong: split would cut prompts and completions apart; it is for task text. "
        "Use truncate_prompt, drop or error.",
        overrides=("data.overlong=split",),
    ),
    # The output folder.
    Mistake(
        "output folder not empty",
        "output_dir: '{folder}/run' is not empty and holds no run of peftune; name another folder.",
        arrange=earlier_files,
    ),
    Mistake(
        "overwriting what is no run",
        "overwrite_output_dir: '{folder}/run' holds no earlier run of peftune and is left alone; "
        "name another folder.",
        overrides=("overwrite_output_dir=true",),
        arrange=earlier_files,
    ),
    Mistake(
        "output folder is a file",
        "output_dir: '{folder}/run' is a file; name a folder.",
        arrange=text_file("run", ""),
    ),
    Mistake(
        "output folder below a file",
        "output_dir: '{folder}/notes.txt/run' cannot be created, because nothing can be written "
        "to {folder}/notes.txt; name another folder.",
        overrides=("output_dir={folder}/notes.txt/run",),
        arrange=text_file("notes.txt", ""),
    ),
    Mistake(
        "unwritable output folder",
        "output_dir: '{locked}/run' cannot be created, because nothing can be written to "
        "{locked}; name another folder.",
        overrides=("output_dir={locked}/run",),
    ),
    # The model.
    Mistake(
        "model folder missing",
        "model.model_name_or_path: '{folder}/nowhere': no such folder.",
        overrides=("model.model_name_or_path={folder}/nowhere",),
    ),
    Mistake(
        "unknown embedded name",
        "model.model_name_or_path: unknown embedded reference 'embedded:coder'; there are: "
        "{embedded}.",
        overrides=("model.model_name_or_path=embedded:coder",),
    ),
    Mistake(
        "pickle checkpoint",
        "model.model_name_or_path: '{folder}/other' holds pickle weights (pytorch_model.bin), "
        "which can run code; convert them to safetensors.",
        overrides=("model.model_name_or_path={folder}/other",),
        arrange=model_files("{}", "pytorch_model.bin"),
    ),
    Mistake(
        "model with its own code",
        "model.model_name_or_path: '{folder}/other' brings its own Python code; read it, then set "
        "model.trust_remote_code: true.",
        overrides=("model.model_name_or_path={folder}/other",),
        arrange=model_files('{"auto_map": {"AutoConfig": "code.Config"}}', "model.safetensors"),
    ),
    Mistake(
        "malformed config.json",
        "model.model_name_or_path: {folder}/other/config.json is not JSON text: Expecting value: "
        "line 1 column 16 (char 15).",
        overrides=("model.model_name_or_path={folder}/other",),
        arrange=model_files('{"model_type": ', "model.safetensors"),
    ),
    Mistake(
        "model without a tokenizer",
        "model.model_name_or_path: '{folder}/other' has no tokenizer; copy tokenizer.json and "
        "tokenizer_config.json of the model into the folder.",
        overrides=("model.model_name_or_path={folder}/other",),
        arrange=model_files('{"model_type": "llama"}', "model.safetensors"),
    ),
    Mistake(
        "unreachable model on the Hub",
        "model.model_name_or_path: 'nobody/nothing' is no local folder, and the tokenizer could "
        "not be fetched from the Hub: HF_HUB_OFFLINE is set. Give a local folder, or go online "
        "(HF_TOKEN for gated models).",
        overrides=("model.model_name_or_path=nobody/nothing",),
    ),
    Mistake(
        "unknown target module",
        "adapter.target_modules: no linear layer named 'q_prj'. Did you mean q_proj? The linear "
        "layers are: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj.",
        overrides=("adapter.target_modules=[q_prj]",),
        environ={"ACCELERATE_USE_CPU": "true"},
        loads_model=True,
    ),
    Mistake(
        "weights cut short",
        "model.model_name_or_path: {folder}/other/model.safetensors is no sound safetensors file: it "
        "has 5 bytes. Fetch it anew, or do not use it.",
        overrides=("model.model_name_or_path={folder}/other",),
        arrange=cut_weights,
    ),
    Mistake(
        "chat template missing",
        "data.chat_template: tokenizer, but a chat template is missing in the model's tokenizer. "
        "Give the path of a Jinja file, or remove the key to train on plain prompts.",
        overrides=("data.chat_template=tokenizer",),
    ),
    # The data.
    Mistake(
        "unreachable data on the Hub",
        "data.path: 'nobody/nothing' is no local folder, and the Hub could not be reached. Give "
        "the path of a folder, or check the network and unset HF_HUB_OFFLINE.",
        overrides=("data.path=nobody/nothing",),
    ),
    Mistake(
        "data file missing",
        "data.test: no such file: {folder}/test.jsonl. The folder {folder} holds: recipe.yaml, "
        "tests.jsonl. Did you mean tests.jsonl?",
        overrides=("data.test={folder}/test.jsonl",),
        arrange=text_file("tests.jsonl", ""),
    ),
    Mistake(
        "empty data file",
        "data.test: {folder}/test.jsonl holds no rows.",
        overrides=("data.test={folder}/test.jsonl",),
        arrange=text_file("test.jsonl", "\n"),
    ),
    Mistake(
        "malformed JSON line",
        "data.test: {folder}/test.jsonl:2: malformed JSON: Expecting value (character 14). Each "
        "line is one object.",
        overrides=("data.test={folder}/test.jsonl",),
        arrange=text_file("test.jsonl", '{"dialogue": "A", "summary": "B"}\n{"dialogue": }\n'),
    ),
    Mistake(
        "column missing",
        "data.columns: completion: no column named 'sumary' in {data}/train.jsonl. Did you mean "
        "summary? The columns are: dialogue, summary.",
        overrides=("data.columns={completion: sumary}",),
    ),
    Mistake(
        "column of another type",
        "data.columns: completion: column 'summary' is a number, not text, in 1 of 2 rows; the "
        "first is {folder}/test.jsonl:2. To leave them out, set data.accept: {invalid: 0.5}.",
        overrides=("data.test={folder}/test.jsonl",),
        arrange=rows_file("test.jsonl", *sentence_pairs(1, 50), {"dialogue": "A", "summary": 7}),
    ),
    Mistake(
        "empty target",
        "data.columns: completion: column 'summary' is blank in 1 of 2 rows; the "
        "first is {folder}/test.jsonl:2. To leave them out, set data.accept: {invalid: 0.5}.",
        overrides=("data.test={folder}/test.jsonl",),
        arrange=rows_file("test.jsonl", *sentence_pairs(1, 50), {"dialogue": "A", "summary": " "}),
    ),
    Mistake(
        "row longer than the limit",
        "data.max_length: 40 of 40 train rows are longer than 20 tokens; the longest is "
        "{data}/train.jsonl:12 with 53. Raise data.max_length, or set data.overlong: drop or "
        "truncate_prompt.",
        overrides=("data.max_length=20",),
    ),
    Mistake(
        "all targets cut away",
        "data.overlong: truncate_prompt cannot bring 40 of 40 train rows down to "
        "data.max_length: 8 without touching the template or the completion; the longest is "
        "{data}/train.jsonl:12 with 53 tokens, 11 of them learnt. Raise data.max_length, or set "
        "data.overlong: drop.",
        overrides=("data.max_length=8", "data.overlong=truncate_prompt"),
    ),
    Mistake(
        "all rows dropped",
        "data.overlong: drop removed all 40 train rows; each is longer than data.max_length: 8.",
        overrides=("data.max_length=8", "data.overlong=drop"),
    ),
    Mistake(
        "train and test overlap",
        "data.test: 40 of 40 test rows are also trained on (40 letter for letter); the first is "
        "{data}/train.jsonl:1, the same as {data}/train.jsonl:1. Remove them from one of the two.",
        overrides=("data.test={data}/train.jsonl",),
    ),
    Mistake(
        "validation without rows",
        "{recipe}:{line}: train.eval_steps: 4: it needs validation rows, and the data has none; "
        "name a file in data.validation, set data.validation_fraction, or remove it.",
        overrides=(
            "data.path=null",
            "data.train={data}/train.jsonl",
            "data.test={data}/test.jsonl",
        ),
        replaced=("eval_steps: 3", "eval_steps: 4"),
    ),
]
LAUNCHER_KEYS = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES", "FSDP_VERSION")


@pytest.fixture
def places(
    tmp_path: Path, model_folder: Path, data_folder: Path, recipe_tree: dict[str, Any]
) -> dict[str, str]:
    """What the braces in the table stand for; the valid recipe is written."""
    from peftune.embedded import embedded_names

    # Root may write anywhere but into the kernel's own file system.
    locked = Path("/proc") if os.geteuid() == 0 else tmp_path / "locked"
    locked.mkdir(mode=0o555, exist_ok=True)
    recipe_tree["train"]["weight_decay"] = 0.0
    return {
        "folder": str(tmp_path),
        "recipe": str(write_recipe(tmp_path, recipe_tree)),
        "model": str(model_folder),
        "data": str(data_folder),
        "locked": str(locked),
        "embedded": ", ".join(f"embedded:{name}" for name in embedded_names()),
    }


def filled(text: str, places: Mapping[str, str]) -> str:
    """`text` with its places; other braces, as in a YAML mapping, stay."""
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", place)
    return text


def made(mistake: Mistake, places: dict[str, str]) -> tuple[str, list[str], str]:
    """Make the mistake; returns the recipe, the overrides and the line to expect."""
    recipe = Path(places["recipe"])
    if mistake.replaced is not None:
        before, after = mistake.replaced
        text = recipe.read_text(encoding="utf-8")
        assert text.count(before) == 1
        places["line"] = str(text[: text.index(before)].count("\n") + 1)
        recipe.write_text(text.replace(before, after), encoding="utf-8")
    mistake.arrange(recipe.parent, Path(places["model"]))
    overrides = [filled(override, places) for override in mistake.overrides]
    return str(recipe), overrides, f"error: {filled(mistake.message, places)}"


@pytest.fixture
def clean_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, and no launcher."""
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for key in [key for key in os.environ if key in LAUNCHER_KEYS or key[:11] == "ACCELERATE_"]:
        monkeypatch.delenv(key)


def refuse_to_load(*arguments: Any) -> None:
    raise AssertionError("the mistake was not found before the model was loaded")


@pytest.mark.usefixtures("clean_launch")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.kind)
def test_a_mistake_is_answered_in_one_line(
    mistake: Mistake,
    places: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for key, value in mistake.environ.items():
        monkeypatch.setenv(key, value)
    if not mistake.loads_model:
        monkeypatch.setattr("peftune.pipeline.load_frozen", refuse_to_load)
    recipe, overrides, expected = made(mistake, places)
    before = sorted(Path(recipe).parent.rglob("*"))
    exit_code = report_errors(False, train_recipe, recipe, overrides)
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if line.startswith("error:")] == [expected]
    assert exit_code == 2
    assert sorted(Path(recipe).parent.rglob("*")) == before


def test_a_tracker_that_is_not_installed_is_refused(
    recipe_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate would train without it and say nothing."""
    recipe = Recipe.model_validate(
        {**recipe_tree, "train": {**recipe_tree["train"], "report_to": ["wandb"]}}
    )
    launch = Launch("ddp", 1, 0, use_cpu=True, wants_gpu=False, offload=False)
    monkeypatch.setattr("peftune.compatibility.installed", lambda name: "0.18")
    check_recipe(recipe, launch)
    monkeypatch.setattr("peftune.compatibility.installed", lambda name: NOT_INSTALLED)
    with pytest.raises(RecipeError, match=r"train\.report_to: wandb is not installed"):
        check_recipe(recipe, launch)


def test_the_table_holds_as_many_kinds_as_promised() -> None:
    assert len({mistake.kind for mistake in MISTAKES}) == len(MISTAKES) >= 25


@pytest.mark.parametrize(
    "kind",
    ["100 MB recipe", "key of another toolkit", "pickle checkpoint", "output folder not empty"],
)
def test_validate_answers_without_torch(kind: str, places: dict[str, str]) -> None:
    """The real command: exit code 2, one line and no more, and no heavy import behind it."""
    code = (
        "import sys\nfrom peftune.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules))"
    )
    result, expected = launched(kind, places, "-c", code, "validate")
    assert (result.returncode, result.stderr) == (2, f"{expected}\n")
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("kind", ["2e-4 read as text", "malformed JSON line"])
def test_the_script_answers_in_one_line(kind: str, places: dict[str, str]) -> None:
    """What `accelerate launch` starts, from another directory."""
    result, expected = launched(kind, places, str(REPOSITORY / "peftune" / "run.py"))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == expected


def launched(
    kind: str, places: dict[str, str], *command: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a Python command on the mistake in its own process; also returns the line to expect."""
    mistake = next(mistake for mistake in MISTAKES if mistake.kind == kind)
    recipe, overrides, expected = made(mistake, places)
    kept = {key: value for key, value in os.environ.items() if key[:11] != "ACCELERATE_"}
    environ = {key: value for key, value in kept.items() if key not in LAUNCHER_KEYS}
    result = subprocess.run(
        [sys.executable, *command, recipe, *overrides],
        cwd=places["folder"],
        env={**environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result, expected
