"""Loading a tokenizer and a frozen base: what is given back, and what is refused.

tests/test_bad_input.py has the whole-run form of the commonest mistakes.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from peftune.embedded import embedded_path
from peftune.errors import ModelError
from peftune.model.base import load_base, load_tokenizer, require_end_token
from peftune.model.head import Head
from peftune.model.location import check_model_files, model_location
from peftune.model.section import Dtype, ModelSection
from peftune.objectives import OBJECTIVES

KEY = "model.model_name_or_path"
CAUSAL = Head(OBJECTIVES["causal"])
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def section_of(folder: Path | str, **keys: Any) -> ModelSection:
    return ModelSection(model_name_or_path=str(folder), **{"dtype": "float32", **keys})


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(model_folder, tmp_path / "base")


def change_json(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    changed = {**json.loads(file.read_text(encoding="utf-8")), **values}
    kept = {key: value for key, value in changed.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def load_frozen_base(section: ModelSection) -> Any:
    return load_base(section, CAUSAL, {}, "cpu")[0]


LOADERS = [load_tokenizer, load_frozen_base]
Loader = Callable[[ModelSection], Any]


def refusal(load: Callable[[ModelSection], Any], section: ModelSection) -> str:
    """The message of the ModelError, which is one line."""
    with pytest.raises(ModelError) as raised:
        load(section)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_base_has_the_asked_dtype_and_the_weights_of_the_file(
    dtype: Dtype, model_folder: Path
) -> None:
    model = load_frozen_base(section_of(model_folder, dtype=dtype))
    loaded = model.state_dict()
    for name, stored in load_file(model_folder / "model.safetensors").items():
        assert torch.equal(loaded[name], stored.to(TORCH_DTYPES[dtype])), name


def test_the_base_is_frozen(model_folder: Path) -> None:
    model = load_frozen_base(section_of(model_folder))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_base_has_the_asked_attention(attention: str, model_folder: Path) -> None:
    model = load_frozen_base(section_of(model_folder, attn_implementation=attention))
    assert model.config._attn_implementation == attention


def test_arguments_of_a_backend_reach_the_loading(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantized weights must not pass through the memory of another device."""
    given: dict[str, Any] = {}

    def record(place: str, **arguments: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
        given.update(arguments)
        return torch.nn.Linear(1, 1), {"missing_keys": [], "mismatched_keys": []}

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", record)
    load_base(section_of(model_folder), CAUSAL, {"quantization_config": "four bits"}, "cuda:1")
    assert given["device_map"] == {"": "cuda:1"}
    assert given["quantization_config"] == "four bits"
    assert given["use_safetensors"] is True
    assert given["trust_remote_code"] is False


def test_the_embedded_decoder_loads_by_its_name() -> None:
    section = section_of("embedded:decoder")
    assert model_location(section) == str(embedded_path("embedded:decoder"))
    assert load_tokenizer(section).eos_token == "<|endoftext|>"
    assert load_frozen_base(section).config.model_type == "llama"


def test_an_embedded_name_must_be_a_model() -> None:
    message = refusal(check_model_files, section_of("embedded:dialogues"))
    assert message == (
        f"{KEY}: 'embedded:dialogues' has no config.json; copy the whole model there, or name another "
        "folder."
    )


def test_a_local_folder_goes_before_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert model_location(section_of("base")) == "base"
    assert load_frozen_base(section_of("base")).config.hidden_size == 64


def test_the_home_folder_may_be_a_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert model_location(section_of("~/base")) == str(folder)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B"])
def test_a_hub_id_stays_as_it_is(name: str) -> None:
    assert model_location(section_of(name)) == name
    check_model_files(section_of(name))


@pytest.mark.parametrize("name", ["./model", "../model", "/no/model", "~/no-model", "a/b/c"])
@pytest.mark.parametrize("load", LOADERS)
def test_what_looks_like_a_path_is_never_sought_on_the_hub(load: Loader, name: str) -> None:
    assert refusal(load, section_of(name)) == f"{KEY}: {name!r}: no such folder."


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_unopened(load: Loader, name: str, folder: Path) -> None:
    mark = folder.parent / "code-ran"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    assert f"holds pickle weights ({name})" in refusal(load, section_of(folder))
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_opened(folder: Path) -> None:
    """Many models on the Hub carry both."""
    mark = folder.parent / "code-ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    load_frozen_base(section_of(folder))
    assert not mark.exists()


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "code-ran")))
    assert (tmp_path / "code-ran").exists()


@pytest.mark.parametrize("load", LOADERS)
def test_a_folder_without_weights_says_so(load: Loader, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    message = refusal(load, section_of(folder))
    assert message == f"{KEY}: '{folder}' has no .safetensors weights."


@pytest.mark.parametrize("load", LOADERS)
def test_code_of_the_model_is_not_run(load: Loader, folder: Path) -> None:
    mark = folder.parent / "code-ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\n")
    change_json(folder / "config.json", auto_map={"AutoConfig": "own.Config"}, model_type="own")
    message = refusal(load, section_of(folder))
    assert message.endswith("read it, then set model.trust_remote_code: true.")
    assert not mark.exists()
    check_model_files(section_of(folder, trust_remote_code=True))


def test_code_beside_a_model_that_transformers_knows_is_passed_over(folder: Path) -> None:
    """As in snapshots of Phi, which keep the code of the time before."""
    mark = folder.parent / "code-ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\n")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    change_json(folder / "config.json", auto_map=own)
    for load in LOADERS:
        load(section_of(folder))
    assert not mark.exists()


def test_code_of_the_tokenizer_is_not_run(folder: Path) -> None:
    mark = folder.parent / "code-ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Words: pass\n")
    own = {"auto_map": {"AutoTokenizer": ["own.Words", None]}, "tokenizer_class": "Words"}
    change_json(folder / "tokenizer_config.json", **own)
    assert f"the tokenizer of '{folder}' cannot be loaded" in refusal(
        load_tokenizer, section_of(folder)
    )
    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[]", "{file} is not a JSON object."),
        (b'{"a": "\xff"}', "{file} is not JSON text: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_config_that_is_none(config: bytes, message: str, folder: Path) -> None:
    file = folder / "config.json"
    file.write_bytes(config)
    expected = f"{KEY}: {message.format(file=file)}"
    assert refusal(load_frozen_base, section_of(folder)).startswith(expected)


def test_an_architecture_without_a_decoder_is_refused(folder: Path) -> None:
    change_json(folder / "config.json", model_type="t5")
    message = refusal(load_frozen_base, section_of(folder))
    assert message.startswith(f"{KEY}: the configuration of '{folder}' cannot be loaded: ")
    assert "T5Config" in message


@pytest.mark.parametrize("load", LOADERS)
def test_a_model_without_a_tokenizer(load: Loader, folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    message = refusal(load, section_of(folder))
    assert message.startswith(f"{KEY}: '{folder}' has no tokenizer; copy tokenizer.json and ")


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    message = refusal(load_tokenizer, section_of(folder))
    assert message.startswith(f"{KEY}: the tokenizer of '{folder}' cannot be loaded: ")


def test_a_slow_tokenizer_is_refused(folder: Path) -> None:
    """ByT5's is written in Python and has no offsets."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    message = refusal(load_tokenizer, section_of(folder))
    assert message.startswith(f"{KEY}: '{folder}' has no fast tokenizer (tokenizer.json); ")


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path) -> None:
    """A completion that never ends cannot be learnt."""
    change_json(folder / "tokenizer_config.json", eos_token=None)
    section = section_of(folder)
    with pytest.raises(ModelError) as caught:
        require_end_token(section, load_tokenizer(section))
    message = str(caught.value)
    assert message == f"{KEY}: the tokenizer of '{folder}' has no end token (eos_token)."


def test_a_pad_token_is_kept_or_borrowed(folder: Path) -> None:
    assert load_tokenizer(section_of(folder)).pad_token == "<pad>"
    change_json(folder / "tokenizer_config.json", pad_token=None)
    assert load_tokenizer(section_of(folder)).pad_token == "<eos>"


@pytest.mark.parametrize(
    ("load", "what"), [(load_tokenizer, "tokenizer"), (load_frozen_base, "configuration")]
)
def test_offline_the_hub_is_not_asked(
    load: Loader, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(load, section_of("nobody/nothing")) == (
        f"{KEY}: 'nobody/nothing' is no local folder, and the {what} could not be fetched from the "
        "Hub: HF_HUB_OFFLINE is set. Give a local folder, or go online (HF_TOKEN for gated models)."
    )


@pytest.mark.parametrize("load", [load_tokenizer, load_frozen_base])
def test_online_the_reason_of_the_hub_is_passed_on(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: str, **arguments: Any) -> None:
        assert arguments["revision"] == "v2"
        raise OSError("You are trying to access a gated repo.\nMake sure to have access.\n")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    message = refusal(load, section_of("some/gated", revision="v2"))
    assert (
        "from the Hub: You are trying to access a gated repo. Make sure to have access." in message
    )
    assert message.endswith("(HF_TOKEN for gated models).")
