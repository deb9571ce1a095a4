"""Adapters of other people that are not what they seem, merged and evaluated."""

import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from peftune import cli
from peftune.engines.launch import read_launch
from peftune.errors import RecipeError
from peftune.reproducing import reproduce
from tests.conftest import write_recipe
from tests.untrusted.guard import Trap, change_header, change_json, untouched

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
Tensors = dict[str, torch.Tensor]
Change = Callable[[Path, Path], object]
"""Made in the run's folder; also told the folder that is not the run's."""


def config(name: str = CONFIG, **keys: object) -> Change:
    return lambda run, outside: change_json(run / name, **keys)


def tensors(change: Callable[[Tensors], object]) -> Change:
    def write(run: Path, outside: Path) -> None:
        found = load_file(run / WEIGHTS)
        change(found)
        save_file(found, run / WEIGHTS)

    return write


def one(value: float, dtype: torch.dtype = torch.float32) -> Change:
    """The last number of one tensor."""

    def change(found: Tensors) -> None:
        found[FIRST] = found[FIRST].to(dtype)
        found[FIRST][-1, -1] = value

    return tensors(change)


def pickle_instead(name: str) -> Change:
    def write(run: Path, outside: Path) -> None:
        (run / WEIGHTS).unlink()
        (run / name).write_bytes(pickle.dumps(Trap(outside / "mark")))

    return write


def linked(name: str, target: str) -> Change:
    def link(run: Path, outside: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(outside / target)

    return link


def text(name: str, content: str) -> Change:
    return lambda run, outside: (run / name).write_text(content, encoding="utf-8")


def elsewhere(found: Tensors) -> None:
    found[FIRST.replace("layers.0", "layers.7")] = found.pop(FIRST)


def overlap(run: Path, outside: Path) -> None:
    def change(header: dict, names: list[str]) -> None:
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
        header[names[1]]["shape"] = header[names[0]]["shape"]

    change_header(run / WEIGHTS, change)


CONFIGURED = f"{{run}}/{CONFIG}: "
WEIGHED = f"{{run}}/{WEIGHTS}: "
CANNOT = "could run code or change the base model; use an adapter without it."
HOSTILE: dict[str, tuple[Change, str]] = {
    "NaN": (one(math.nan), WEIGHED + f"the tensor '{FIRST}' holds NaN or infinite numbers"),
    "infinity in bfloat16": (
        one(math.inf, torch.bfloat16),
        WEIGHED + f"the tensor '{FIRST}' holds NaN or infinite numbers",
    ),
    "NaN in float64": (
        one(math.nan, torch.float64),
        WEIGHED + f"the tensor '{FIRST}' holds NaN or infinite numbers",
    ),
    "pickle": (
        pickle_instead("adapter_model.bin"),
        "{run} holds adapter_model.bin, which can run code; convert the adapter to safetensors.",
    ),
    "pickle in disguise": (
        pickle_instead(WEIGHTS),
        f"{{run}}/{WEIGHTS} is no sound safetensors file: it is a pickle.",
    ),
    "overlapping tensors": (overlap, f"{{run}}/{WEIGHTS} is no sound safetensors file: its tensor"),
    "weights that are a link": (
        linked(WEIGHTS, "secret.safetensors"),
        f"{{run}}/{WEIGHTS} is a link that leaves its folder, to {{outside}}/secret.safetensors;",
    ),
    "tokenizer that is a link": (
        linked("tokenizer.json", "secret.json"),
        "{run}/tokenizer.json is a link that leaves its folder, to {outside}/secret.json;",
    ),
    "templates in a linked folder": (
        linked("additional_chat_templates", "."),
        "{run}/additional_chat_templates is a link that leaves its folder, to {outside};",
    ),
    "kind that fetches other adapters": (
        config(peft_type="XLORA", adapters={"0": "somebody/adapter"}),
        CONFIGURED + "peft_type: 'XLORA' is none of LORA, IA3.",
    ),
    "kind that is no name": (
        config(peft_type=[]),
        CONFIGURED + "peft_type: [] is none of LORA, IA3.",
    ),
    "module to import": (
        config(megatron_config={"a": 1}, megatron_core="megatron.own"),
        CONFIGURED + "megatron_config: {{'a': 1}} is not supported, as it " + CANNOT,
    ),
    "start that decomposes the base": (
        config(init_lora_weights="pissa_niter_1000000"),
        CONFIGURED
        + "init_lora_weights: 'pissa_niter_1000000' cannot be: input should be a valid boolean, or input",
    ),
    "start that quantizes the base": (
        config(init_lora_weights="loftq", loftq_config={"loftq_bits": 4, "loftq_iter": 10**9}),
        CONFIGURED
        + "init_lora_weights: 'loftq' cannot be: input should be a valid boolean, or input",
    ),
    "start from data": (
        config(eva_config={"rho": 2.0}),
        CONFIGURED + "eva_config: {{'rho': 2.0}} is not supported",
    ),
    "corda": (
        config(corda_config={"cache_file": "../../outside/secret.json"}),
        CONFIGURED + "corda_config: {{'cache_file': '../../outside/secret.json'}} is not supported",
    ),
    "layers copied a billion times": (
        config(layer_replication=[[0, 10**9]]),
        CONFIGURED + "layer_replication: [[0, 1000000000]] is not supported",
    ),
    "tokens of the base": (
        config(trainable_token_indices=[0, 1]),
        CONFIGURED + "trainable_token_indices: [0, 1] is not supported",
    ),
    "key of tomorrow": (
        config(run_at_load="x"),
        CONFIGURED + "run_at_load: 'x' is not supported, as it " + CANNOT,
    ),
    "biases of the base": (
        config(bias="all"),
        CONFIGURED
        + "bias: 'all' cannot be: input should be 'none'. Save the adapter anew as a plain one",
    ),
    "a billion ranks": (
        config(r=10**9),
        CONFIGURED + f"r: 1,000,000,000 is more than any tensor of {WEIGHTS} has, 128;",
    ),
    "a billion ranks of a layer": (
        config(rank_pattern={"q_proj": 10**9}),
        CONFIGURED + "rank_pattern: 1,000,000,000 is more than any tensor of",
    ),
    "rank below one": (
        config(r=-4),
        CONFIGURED + "r: -4 cannot be: input should be greater than or equal to 1.",
    ),
    "rank that is a text": (
        config(r="8"),
        CONFIGURED + "r: '8' cannot be: input should be a valid int",
    ),
    "a thousand patterns": (
        config(alpha_pattern={f"a{n}": 8 for n in range(1000)}),
        CONFIGURED + f"alpha_pattern names 1,000 layers, and {WEIGHTS} has 28 tensors;",
    ),
    "scale that is infinite": (
        config(lora_alpha=math.inf),
        CONFIGURED + "lora_alpha: inf cannot be: input should be a finite number.",
    ),
    "pattern that never ends": (
        config(target_modules=r"(([\w.])+)+#"),
        CONFIGURED
        + r"target_modules: '(([\\w.])+)+#' takes more than 1 s to be matched with the model's",
    ),
    "pattern of a rank that never ends": (
        config(rank_pattern={r"((\w|.)*)*#": 4}),
        CONFIGURED + r"rank_pattern: '((\\w|.)*)*#' takes more than 1 s",
    ),
    "pattern that is none": (
        config(exclude_modules="(("),
        CONFIGURED + "exclude_modules: '((' is no regular expression; name the modules in a list.",
    ),
    "pattern in a list of names": (
        config(modules_to_save=[r"(\w+)+"]),
        CONFIGURED + "modules_to_save: '(\\\\w+)+' cannot be: string should match pattern",
    ),
    "modules that match nothing": (
        config(target_modules=["nothing"]),
        f"{{run}}/{CONFIG} does not fit the base model: Target modules ",
    ),
    "tensor without a module": (
        tensors(elsewhere),
        WEIGHED
        + "the base model has no place for the adapter's 'base_model.model.model.layers.7.mlp.",
    ),
    "weights of the base itself": (
        tensors(lambda found: found.update({"base_model.model.model.norm.weight": torch.ones(64)})),
        WEIGHED
        + "the base model has no place for the adapter's 'base_model.model.model.norm.weight';",
    ),
    "name of another kind": (
        tensors(lambda found: found.update({"../../outside": torch.ones(1)})),
        WEIGHED
        + "the tensor '../../outside' of type F32 is none of an adapter, whose names start with",
    ),
    "wrong shape": (
        tensors(lambda found: found.update({FIRST: torch.ones(4, 100)})),
        WEIGHED
        + f"'{FIRST}' has the shape [4, 100], and by base model and {CONFIG} it is [4, 128];",
    ),
    "rank of another configuration": (
        config(r=8),
        WEIGHED
        + f"'{FIRST}' has the shape [4, 128], and by base model and {CONFIG} it is [8, 128];",
    ),
    "missing tensor": (
        tensors(lambda found: found.pop(FIRST)),
        f"{{run}}/{WEIGHTS} lacks 1 of the tensors that {CONFIG} describes, the first is {FIRST};",
    ),
    "no tensors": (tensors(dict.clear), f"{{run}}/{WEIGHTS} has no tensors;"),
    "whole numbers": (
        one(1, torch.int32),
        WEIGHED + f"the tensor '{FIRST}' of type I32 is none of an adapter,",
    ),
    "configuration of 17 MiB": (
        lambda run, outside: os.truncate(run / CONFIG, 17 * 2**20),
        f"{{run}}/{CONFIG} has 17,825,792 bytes, and such a file has 16,777,216 at most;",
    ),
    "no configuration": (
        lambda run, outside: (run / CONFIG).unlink(),
        f"{{run}} has no {CONFIG}; name the folder of an adapter.",
    ),
    "configuration that is a list": (text(CONFIG, "[]"), f"{{run}}/{CONFIG} is not a JSON object."),
    "tokenizer with code": (
        config("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Words", None]}),
        "{run}/tokenizer_config.json brings its own Python code; read it, then set",
    ),
    "labels that are no names": (
        text("labels.json", json.dumps({"objective": "label", "labels": [10**9]})),
        "{run}/labels.json: labels is no list of names; take the file of the run.",
    ),
    "objective that is none": (
        text("labels.json", json.dumps({"objective": "__class__", "labels": []})),
        "{run}/labels.json: objective: '__class__' is none that peftune knows.",
    ),
}
EVALUATED = ("NaN", "pickle", "weights of the base itself", "wrong shape", "module to import")


def test_there_are_as_many_as_promised() -> None:
    assert len(HOSTILE) >= 40


def wanted(run: Path) -> tuple[Any, ...]:
    """A merge of this adapter alone to its usual place, which is not proven."""
    return place(run), ([], None, None, None), run / "merged", False, None


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_adapter_is_not_merged(
    kind: str, run: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = HOSTILE[kind]
    change(run, outside)
    before = sorted(path.name for path in run.iterdir())
    with untouched(outside, run.parent):
        code = cli.report_errors(False, cli._merge, *wanted(run))
    refused(capsys, code, message.format(run=run, outside=outside))
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize("kind", EVALUATED)
def test_a_hostile_adapter_is_not_evaluated(
    kind: str, run: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = HOSTILE[kind]
    change(run, outside)
    with untouched(outside, run.parent):
        code = cli.report_errors(False, cli._evaluate, run, [], False)
    refused(capsys, code, message.format(run=run, outside=outside))


def place(run: Path) -> tuple[Path, list[str], None, None]:
    """What `peftune merge RUN` is told."""
    return run, [], None, None


def refused(capsys: pytest.CaptureFixture[str], code: int, message: str) -> None:
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors and errors[-1].startswith(f"error: {message}")
    assert (code, len(errors), lines[-1]) == (2, 1, errors[-1])


def test_the_base_that_an_adapter_names_is_not_followed(run: Path, outside: Path) -> None:
    """The recipe says which model is the base."""
    change_json(run / CONFIG, base_model_name_or_path=str(outside), revision="../..")
    with untouched(outside, run.parent):
        cli._merge(*wanted(run))
    assert (run / "merged" / "model.safetensors").is_file()


def test_a_card_runs_no_code_by_itself(run: Path, tmp_path: Path) -> None:
    """What a card says of remote code has to be said again by who runs it."""
    tree = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    tree["model"]["trust_remote_code"] = True
    recipe = write_recipe(run, tree).read_text(encoding="utf-8")
    card = f"---\nlicense: mit\n---\n<details>\n\n```yaml\n{recipe}```\n\n</details>\n"
    (run / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(RecipeError, match="its recipe runs Python code of the model; read it"):
        reproduce(str(run), tmp_path / "again", [], read_launch({}))
    assert not (tmp_path / "again").exists()
