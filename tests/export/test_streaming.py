"""A merge reads and writes a piece at a time, into files of a size, and goes on where it stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftune.errors import ModelError, PeftuneError
from peftune.export import merge as merging
from peftune.export.merge import Merge
from peftune.export.tensor_file import NAMES, TensorFile
from peftune.quantization.bnb4bit import Bnb4bitSection
from tests.adapters.tiny_llama import load
from tests.export.merging import merge_folders

SMALL = 60_000
Tensors = dict[str, torch.Tensor]


def weights(folder: Path) -> Tensors:
    found: Tensors = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.fixture
def sharded(llama: Path, tmp_path: Path) -> Path:
    """The model in files of their own size."""
    folder = tmp_path / "sharded"
    load(llama).save_pretrained(folder, max_shard_size="100KB")
    assert len([*folder.glob("*.safetensors")]) > 2
    return folder


def test_files_of_any_size_hold_the_same(
    adapter_folder: Path, llama: Path, sharded: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    merge_folders(adapter_folder, llama, tmp_path / "one")
    monkeypatch.setattr("peftune.export.shards.SHARD", SMALL)
    merge_folders(adapter_folder, sharded, tmp_path / "many")
    one, many = weights(tmp_path / "one"), weights(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(torch.equal(many[name], tensor) for name, tensor in one.items())
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = {path.name for path in (tmp_path / "many").glob("*.safetensors")}
    assert {*index["weight_map"].values()} == files and len(files) > 2
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in many.values())
    assert torch.equal(load(tmp_path / "many").lm_head.weight, one["lm_head.weight"])


def test_an_interrupted_merge_goes_on(
    adapter_folder: Path, llama: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    merge_folders(adapter_folder, llama, tmp_path / "whole")
    monkeypatch.setattr("peftune.export.shards.SHARD", SMALL)
    written: list[str] = []
    write = Merge.write_shard

    def third_fails(self: Merge, path: Path, shard: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, path, shard)
        written.append(path.name)

    monkeypatch.setattr(Merge, "write_shard", third_fails)
    with pytest.raises(KeyboardInterrupt):
        merge_folders(adapter_folder, llama, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    first = [*written]
    monkeypatch.setattr(Merge, "write_shard", write)
    names: list[str] = []

    def noted(self: Merge, path: Path, shard: Any) -> None:
        names.append(path.name)
        write(self, path, shard)

    monkeypatch.setattr(Merge, "write_shard", noted)
    merge_folders(adapter_folder, llama, tmp_path / "m")
    assert names and not set(names) & set(first)
    whole, found = weights(tmp_path / "whole"), weights(tmp_path / "m")
    assert whole.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())


def interrupt(adapter: Path, base: Path, out: Path) -> None:
    """Leave what a merge leaves that was stopped when all its files were written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peftune.export.shards.SHARD", SMALL)
        patch.setattr(merging, "write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            merge_folders(adapter, base, out)


def test_another_basis_starts_anew(
    adapter_folder: Path, llama: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """What an interrupted merge left holds the checkpoint's own weights; these are to be the bits'."""
    interrupt(adapter_folder, llama, tmp_path / "m")
    monkeypatch.setattr("peftune.export.shards.SHARD", SMALL)
    section = Bnb4bitSection(method="bnb-nf4")
    merge_folders(adapter_folder, llama, tmp_path / "m", quantization=section)
    merge_folders(adapter_folder, llama, tmp_path / "again", quantization=section)
    found, again = weights(tmp_path / "m"), weights(tmp_path / "again")
    assert all(torch.equal(found[name], tensor) for name, tensor in again.items())


def test_another_adapter_starts_anew(
    adapter_folder: Path, llama: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    interrupt(adapter_folder, llama, tmp_path / "m")
    file = adapter_folder / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    merge_folders(adapter_folder, llama, tmp_path / "m")
    merge_folders(adapter_folder, llama, tmp_path / "again")
    found, again = weights(tmp_path / "m"), weights(tmp_path / "again")
    assert all(torch.equal(found[name], tensor) for name, tensor in again.items())


def test_a_base_that_lacks_a_weight_is_refused(
    adapter_folder: Path, llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(llama, folder)
    file = folder / "model.safetensors"
    lacking = load_file(file)
    del lacking["model.norm.weight"]
    save_file(lacking, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack model\.norm\.weight"):
        merge_folders(adapter_folder, folder, tmp_path / "m")


def test_a_file_of_tensors_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {f"{name}é": torch.arange(1, 4).to(dtype) for dtype, name in NAMES.items()}
    shapes = {name: torch.empty_like(one, device="meta") for name, one in tensors.items()}
    with TensorFile(tmp_path / "a.safetensors", shapes) as file:
        for name, one in tensors.items():
            file.write(name, one)
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], one) for name, one in tensors.items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("b", torch.zeros(2), r"b \(2,\) .* came where a \(3,\)"),
        ("a", torch.zeros(3, dtype=torch.float64), r"torch.float64 came where a"),
    ],
)
def test_what_was_not_planned_is_not_written(
    name: str, value: torch.Tensor, message: str, tmp_path: Path
) -> None:
    shapes = {"a": torch.empty(3, device="meta")}
    with (
        pytest.raises(PeftuneError, match=message),
        TensorFile(tmp_path / "a.safetensors", shapes) as file,
    ):
        file.write(name, value)


def test_a_tensor_that_is_missing_is_an_error(tmp_path: Path) -> None:
    shapes = {"a": torch.empty(3, device="meta")}
    with (
        pytest.raises(PeftuneError, match=r"a was not written"),
        TensorFile(tmp_path / "a.safetensors", shapes),
    ):
        pass
