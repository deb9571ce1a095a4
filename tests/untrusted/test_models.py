"""Base models of other people that are not what they seem: each is refused in one line."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peftune.cli import report_errors, train_recipe
from tests.conftest import summary_tree, write_recipe
from tests.untrusted.guard import Trap, change_header, change_json, untouched, with_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Change = Callable[[Path, Path], object]
"""Made in the model's folder; also told the folder that is not the model's."""


def header(change: Callable[[dict, list[str]], object]) -> Change:
    return lambda base, outside: change_header(base / WEIGHTS, change)


def first(**keys: object) -> Change:
    return header(lambda found, names: found[names[0]].update(keys))


def text(content: bytes) -> Change:
    return lambda base, outside: with_header(base / WEIGHTS, content)


def config(name: str = "config.json", **keys: object) -> Change:
    return lambda base, outside: change_json(base / name, **keys)


def claimed(length: int, size: int) -> Change:
    def write(base: Path, outside: Path) -> None:
        (base / WEIGHTS).write_bytes(length.to_bytes(8, "little"))
        os.truncate(base / WEIGHTS, size)

    return write


def overlap(found: dict, names: list[str]) -> None:
    """The second tensor begins in the first, and all bytes are used."""
    one, other = found[names[0]], found[names[1]]
    one["data_offsets"][1] += 4
    one["shape"] = [(one["data_offsets"][1] - one["data_offsets"][0]) // 4]
    one["dtype"] = other["dtype"] = "F32"


def linked(name: str, target: str) -> Change:
    def link(base: Path, outside: Path) -> None:
        (base / name).unlink(missing_ok=True)
        (base / name).symlink_to(outside / target)

    return link


def index(place: str) -> Change:
    """All tensors are said to be in `place`, which may name {outside}."""

    def write(base: Path, outside: Path) -> None:
        (base / WEIGHTS).rename(base / "model-1.safetensors")
        where = {"model.norm.weight": place.format(outside=outside)}
        (base / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))

    return write


def absent_tensor(base: Path, outside: Path) -> None:
    index("model-1.safetensors")(base, outside)
    where = {"model.other.weight": "model-1.safetensors"}
    change_json(base / INDEX, weight_map=where)


def doubled_key(base: Path, outside: Path) -> None:
    content = (base / "config.json").read_text(encoding="utf-8")
    (base / "config.json").write_text('{"model_type": "bert",' + content.lstrip()[1:])


def pipe(base: Path, outside: Path) -> None:
    (base / "tokenizer_config.json").unlink()
    os.mkfifo(base / "tokenizer_config.json")


def pickled(base: Path, outside: Path) -> None:
    (base / WEIGHTS).write_bytes(pickle.dumps(Trap(outside / "mark")))


def embedded_adapter(base: Path, outside: Path) -> None:
    wanted = {"peft_type": "LORA", "base_model_name_or_path": str(outside)}
    (base / "adapter_config.json").write_text(json.dumps(wanted))


def deep(base: Path, outside: Path) -> None:
    (base / "config.json").write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")


def nested(base: Path, outside: Path) -> None:
    change_json(base / "config.json", a=json.loads("[" * 70 + "]" * 70))


UNSOUND = "{base}/model.safetensors is no sound safetensors file: "
HOSTILE: dict[str, tuple[Change, str]] = {
    "oversized header": (claimed(2**40, 100), UNSOUND + "it claims a header of 1,099,511,627,776"),
    "header beyond the bound": (
        claimed(150_000_000, 200_000_000),
        UNSOUND + "it claims a header of 150,000,000 bytes, has 200,000,000, and 100,000,000 are",
    ),
    "cut file": (claimed(1, 5), UNSOUND + "it has 5 bytes. Fetch it anew, or do not use it."),
    "header that is no object": (text(b"[1]"), UNSOUND + "its header is no JSON object"),
    "header that is no text": (
        text(b'{"\xff": 1}'),
        "The header of {base}/model.safetensors is not JSON text: 'utf-8' codec can't decode",
    ),
    "bottomless header": (
        text(b'{"a":' + b"[" * 100_000),
        "The header of {base}/model.safetensors is nested too deeply for JSON of its kind.",
    ),
    "tensor named twice": (
        text(b'{"a": {}, "a": {}}'),
        "The header of {base}/model.safetensors is not JSON text: the key 'a' is there twice.",
    ),
    "overlapping tensors": (header(overlap), UNSOUND + "its tensor 'model.layers.0."),
    "gap between tensors": (
        header(lambda found, names: found.pop(names[1])),
        UNSOUND + "its tensor 'model.layers.0.mlp.down_proj.weight' leaves a gap before it.",
    ),
    "bytes behind the last tensor": (
        lambda base, outside: (base / WEIGHTS).open("ab").write(b"PK\3\4" * 8),
        UNSOUND + "its tensors need",
    ),
    "negative shape": (
        first(shape=[-384, -64]),
        UNSOUND + "its tensor 'model.embed_tokens.weight'",
    ),
    "shape that overflows": (
        first(shape=[2**40, 2**40]),
        UNSOUND + "its tensor 'model.embed_tokens.weight' has more elements than can be counted",
    ),
    "shape of a million sizes": (
        first(shape=[2**60] * 10**5),
        UNSOUND + "its tensor 'model.embed_tokens.weight' has a shape or place that is no list",
    ),
    "shape without its bytes": (
        first(shape=[10**9, 64]),
        UNSOUND
        + "its tensor 'model.embed_tokens.weight' has 98,304 bytes, and F32 [1000000000, 64]",
    ),
    "unknown type": (
        first(dtype="OBJECT"),
        UNSOUND + "its tensor 'model.embed_tokens.weight' has the unknown type 'OBJECT'.",
    ),
    "pickle in disguise": (pickled, UNSOUND + "it is a pickle."),
    "torch archive in disguise": (
        lambda base, outside: torch.save({"a": torch.ones(2)}, base / WEIGHTS),
        UNSOUND + "it is a zip archive, as torch.save writes.",
    ),
    "weights that are a link": (
        linked(WEIGHTS, "secret.safetensors"),
        "{base}/model.safetensors is a link that leaves its folder, to {outside}/secret.safetensors;",
    ),
    "configuration that is a link": (
        linked("config.json", "secret.json"),
        "{base}/config.json is a link that leaves its folder, to {outside}/secret.json; put a copy",
    ),
    "link to nothing elsewhere": (
        linked("generation_config.json", "not-there.json"),
        "{base}/generation_config.json is a link that leaves its folder, to {outside}/not-there.json",
    ),
    "pipe": (pipe, "{base}/tokenizer_config.json is not a regular file; remove it."),
    "index that climbs": (
        index("../../outside/secret.safetensors"),
        "{base}/model.safetensors.index.json names '../../outside/secret.safetensors', which is not in",
    ),
    "index with an absolute path": (
        index("{outside}/secret.safetensors"),
        "{base}/model.safetensors.index.json names '{outside}/secret.",
    ),
    "index of another kind of file": (
        index("pytorch_model.bin"),
        "{base}/model.safetensors.index.json names 'pytorch_model.bin', which is no .safetensors file.",
    ),
    "index with a missing file": (
        index("model-9.safetensors"),
        "{base}/model.safetensors.index.json names 'model-9.safetensors', which is not there",
    ),
    "index with a missing tensor": (
        absent_tensor,
        "{base}/model.safetensors.index.json says that 'model.other.weight' is in 'model-1.safetensors'",
    ),
    "remote code": (
        config(auto_map={"AutoConfig": "own.Config"}, model_type="own"),
        "'{base}' brings its own Python code; read it, then set model.trust_remote_code: true.",
    ),
    "model type that is no name": (
        config(auto_map={"AutoConfig": "own.Config"}, model_type=["llama"]),
        "'{base}' brings its own Python code; read it, then set model.trust_remote_code: true.",
    ),
    "kernel from the Hub": (
        config(attn_implementation="somebody/kernel"),
        "{base}/config.json: attn_implementation: 'somebody/kernel' would fetch code and run it;",
    ),
    "other weights": (
        config(transformers_weights="adapter_model.bin"),
        "{base}/config.json: transformers_weights: 'adapter_model.bin' names other weights than",
    ),
    "adapter on the model": (embedded_adapter, "{base} has an adapter_config.json, which would be"),
    "a billion labels": (
        config(num_labels=10**9),
        "{base}/config.json: num_labels: 1,000,000,000 is far more than the model's weights can be",
    ),
    "a billion layers": (
        config(num_hidden_layers=10**9),
        "{base}/config.json: num_hidden_layers: 1,000,000,000 is far more than",
    ),
    "a billion tokens": (
        config(vocab_size=10**9),
        "{base}/config.json: vocab_size: 1,000,000,000 is",
    ),
    "positions of a sub-model": (
        config(text_config={"max_position_embeddings": 10**12}),
        "{base}/config.json: max_position_embeddings: 1,000,000,000,000 is far more than",
    ),
    "a model far larger than its weights": (
        config(vocab_size=100_000, hidden_size=100_000),
        "the config.json of '{base}' describes ",
    ),
    "configuration of 17 MiB": (
        lambda base, outside: os.truncate(base / "config.json", 17 * 2**20),
        "{base}/config.json has 17,825,792 bytes, and such a file has 16,777,216 at most;",
    ),
    "key that is there twice": (
        doubled_key,
        "{base}/config.json is not JSON text: the key 'model_type' is there twice.",
    ),
    "bottomless configuration": (
        deep,
        "{base}/config.json is nested too deeply for JSON of its kind.",
    ),
    "deep configuration": (nested, "{base}/config.json is nested more than 64 levels deep."),
    "tokenizer that climbs": (
        config("tokenizer_config.json", fast_tokenizer_files=["../../outside/tokenizer.9.json"]),
        "{base}/tokenizer_config.json names '../../outside/tokenizer.9.json', which is not in its own",
    ),
    "tokenizer with a file elsewhere": (
        lambda base, outside: change_json(
            base / "tokenizer_config.json", vocab_file=str(outside / "secret.json")
        ),
        "{base}/tokenizer_config.json names '{outside}/secret.json', which is not in its own folder;",
    ),
}


def test_there_are_as_many_as_promised() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_model_is_refused_in_one_line(
    kind: str,
    base: Path,
    outside: Path,
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, message = HOSTILE[kind]
    change(base, outside)
    tree = summary_tree(base, data_folder) | {"output_dir": str(tmp_path / "home" / "run")}
    recipe = write_recipe(tmp_path / "home", tree)
    with untouched(outside, tmp_path / "home"):
        code = report_errors(False, train_recipe, str(recipe), [])
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: model.model_name_or_path: {message.format(base=base, outside=outside)}"
    )
    assert (code, said.count("\n")) == (2, 1)
    assert not (tmp_path / "home" / "run").exists()
