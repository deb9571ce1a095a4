"""What was written has to compute what was trained: faults of merged models, each with its number."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from peftune.adapters import attach, saved_form
from peftune.adapters.lora import LoraSection
from peftune.errors import ParityError, RecipeError
from peftune.export.adapter import save_adapter
from peftune.export.parity import BOUNDS, Probe, compared, plain_scores, prove
from peftune.merging import (
    REPORT,
    merge_into_bits,
    merge_proven,
    opened_adapter,
    opened_merged,
    probe_of,
    weighted,
    write_merged,
)
from peftune.model.head import Head
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES
from peftune.quantization.bnb4bit import Bnb4bitSection
from peftune.quantization.bnb8bit import Bnb8bitSection
from peftune.sources import Source, source_at
from tests.adapters.tiny_llama import load, trained_tensors

Q, K = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
Tensors = dict[str, torch.Tensor]


def write_base(folder: Path, seed: int = 0, labels: int = 0, tied: bool = False) -> Path:
    """A two-layer Llama whose attention matrices are square, with its tokenizer's files left out."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    if labels:
        config.num_labels = labels
    model = (LlamaForSequenceClassification if labels else LlamaForCausalLM)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def write_adapter(folder: Path, base: Path, seed: int = 0, **keys: Any) -> Path:
    torch.manual_seed(seed)
    section = LoraSection(
        method="lora", r=4, target_modules=("q_proj", "k_proj", "up_proj"), **keys
    )
    adapted = attach(section, load(base))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    tensors, config = saved_form(
        section, {}, trained_tensors(adapted), adapted.peft_config["default"]
    )
    save_adapter(folder, config, tensors, str(base))
    return folder


@pytest.fixture(scope="session")
def tokenizer_files(model_folder: Path) -> list[Path]:
    return [model_folder / name for name in ("tokenizer.json", "tokenizer_config.json")]


@pytest.fixture
def base(tmp_path: Path, tokenizer_files: list[Path]) -> Path:
    folder = write_base(tmp_path / "base")
    for file in tokenizer_files:
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    return write_adapter(tmp_path / "adapter", base)


@pytest.fixture
def source(base: Path) -> Source:
    section = ModelSection(model_name_or_path=str(base), dtype="float32")
    return Source(section, Head(OBJECTIVES["causal"]), BOUNDS["float32"])


def change(folder: Path, make: Callable[[Tensors], Tensors]) -> None:
    """Write the tensors of a model's files anew."""
    for file in folder.glob("*.safetensors"):
        save_file(make(load_file(file)), file, metadata={"format": "pt"})


def weights(folder: Path) -> Tensors:
    found: Tensors = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def proven(source: Source, probe: Probe, merged: Path) -> float:
    """The difference of a merged model, which `prove` accepts."""
    (parity,) = prove(probe, {opened_merged(source, merged): source.bound}, source.chooses)
    return parity.difference


def refused(source: Source, probe: Probe, merged: Path) -> float:
    """The difference of a merged model, which `prove` refuses with that number in its message."""
    with pytest.raises(ParityError) as caught:
        proven(source, probe, merged)
    parity: Any = caught.value.parity
    assert f"the merged model's scores differ by {parity.difference:.1e}" in str(caught.value)
    return float(parity.difference)


def test_a_merge_is_proven_and_says_how_well(source: Source, folder: Path, tmp_path: Path) -> None:
    merge_proven(source, folder, tmp_path / "m")
    report = json.loads((tmp_path / "m" / REPORT).read_text())
    assert report["accepted"] is True and report["merge_base"] == "original"
    parity = report["parity"]
    assert parity["difference"] < 1e-5 < 0.1 < parity["adapter_effect"]
    assert parity["top1_agreement"] == 1.0 and parity["kl"] < 1e-9
    assert str(tmp_path) not in json.dumps(report)


def test_a_merge_that_is_not_proven_says_so(source: Source, folder: Path, tmp_path: Path) -> None:
    merge_proven(source, folder, tmp_path / "m", verify=False)
    assert json.loads((tmp_path / "m" / REPORT).read_text())["accepted"] is None


def _unmerged(tensors: Tensors, base: Tensors) -> Tensors:
    return {name: base[name] if "layers.1" in name else one for name, one in tensors.items()}


def _scaled(tensors: Tensors, base: Tensors) -> Tensors:
    return {name: base[name] + 1.01 * (one - base[name]) for name, one in tensors.items()}


def _transposed(tensors: Tensors, base: Tensors) -> Tensors:
    square = {name for name, one in tensors.items() if one.shape == (64, 64)}
    return {
        name: base[name] + (one - base[name]).T if name in square else one
        for name, one in tensors.items()
    }


def _overflown(tensors: Tensors, base: Tensors) -> Tensors:
    return {name: one * 1e30 if name == Q else one for name, one in tensors.items()}


FAULTS = {
    "one part was not merged": _unmerged,
    "a scale one percent off": _scaled,
    "deltas transposed": _transposed,
    "numbers beyond their range": _overflown,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_weights(
    fault: str, source: Source, folder: Path, base: Path, tmp_path: Path
) -> None:
    merged, probe, before = tmp_path / "m", probe_of(source, folder), weights(base)
    merge_proven(source, folder, merged, verify=False)
    assert proven(source, probe, merged) < 1e-5
    change(merged, lambda tensors: FAULTS[fault](tensors, before))
    assert refused(source, probe, merged) > 10 * source.bound


def test_queries_and_keys_swapped(source: Source, folder: Path, tmp_path: Path) -> None:
    merged, probe = tmp_path / "m", probe_of(source, folder)
    merge_proven(source, folder, merged, verify=False)
    every = weights(merged)
    swapped = {**every, Q: every[K], K: every[Q]}
    change(merged, lambda tensors: {name: swapped[name].clone() for name in tensors})
    assert refused(source, probe, merged) > 10 * source.bound


def test_another_revision_of_the_base(
    source: Source, folder: Path, tmp_path: Path, tokenizer_files: list[Path]
) -> None:
    """The probe is the run's; the base has changed since."""
    probe = probe_of(source, folder)
    other = write_base(tmp_path / "other", seed=1)
    for file in tokenizer_files:
        shutil.copy(file, other)
    model = source.model.model_copy(update={"model_name_or_path": str(other)})
    merge_proven(replace(source, model=model), folder, tmp_path / "m", verify=False)
    assert refused(source, probe, tmp_path / "m") > 0.1


def test_the_adapter_of_another_model(
    source: Source, folder: Path, base: Path, tmp_path: Path
) -> None:
    probe = probe_of(source, folder)
    other = write_adapter(tmp_path / "other", base, seed=7)
    merge_proven(source, other, tmp_path / "m", verify=False)
    assert refused(source, probe, tmp_path / "m") > 0.1


def test_an_adapter_on_8_bits_is_opened_with_their_rounding(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    """bitsandbytes rounds inputs as well, which the weights that the bits stand for do not ask for."""
    eight = replace(source, quantization=Bnb8bitSection(method="bnb-int8"), dequantized=True)
    write_merged(eight, folder, tmp_path / "m", lambda aside: None)
    (scores,) = plain_scores([opened_merged(eight, tmp_path / "m")], _inputs(eight, folder))
    probe = replace(probe_of(eight, folder), adapted=scores["adapted"])
    opened = {opened_adapter(eight, folder): eight.adapter_bound}
    (parity,) = prove(probe, opened, eight.chooses)
    assert 1e-4 < parity.difference < eight.adapter_bound < parity.adapter_effect


def _inputs(source: Source, folder: Path) -> Tensors:
    probe = probe_of(source, folder)
    return {**probe.inputs, **probe.places}


def test_the_original_base_of_a_quantized_run(source: Source, folder: Path, tmp_path: Path) -> None:
    quantized = replace(source, quantization=Bnb4bitSection(method="bnb-nf4"), dequantized=True)
    probe = probe_of(quantized, folder)
    merge_proven(quantized, folder, tmp_path / "right")
    write_merged(source, folder, tmp_path / "m", lambda aside: None)
    assert proven(quantized, probe, tmp_path / "right") < 1e-5
    assert refused(quantized, probe, tmp_path / "m") > 100 * source.bound


def test_a_stale_tied_head(tmp_path: Path, tokenizer_files: list[Path]) -> None:
    """The embeddings were trained, and the head with them; a file has the head as it was."""
    base = write_base(tmp_path / "base", tied=True)
    for file in tokenizer_files:
        shutil.copy(file, base)
    folder = write_adapter(tmp_path / "adapter", base, modules_to_save=("embed_tokens",))
    section = ModelSection(model_name_or_path=str(base), dtype="float32")
    source = Source(section, Head(OBJECTIVES["causal"]), BOUNDS["float32"])
    probe, merged = probe_of(source, folder), tmp_path / "m"
    merge_proven(source, folder, merged)
    stale = weights(base)["model.embed_tokens.weight"]
    config = json.loads((merged / "config.json").read_text()) | {"tie_word_embeddings": False}
    (merged / "config.json").write_text(json.dumps(config))
    change(merged, lambda tensors: {**tensors, "lm_head.weight": stale})
    assert refused(source, probe, merged) > 0.1


def test_a_head_that_is_missing(tmp_path: Path, tokenizer_files: list[Path]) -> None:
    base = write_base(tmp_path / "base", labels=3)
    for file in tokenizer_files:
        shutil.copy(file, base)
    section = ModelSection(model_name_or_path=str(base), dtype="float32")
    head = Head(OBJECTIVES["label"], ("good", "bad", "odd"))
    source = Source(section, head, BOUNDS["float32"])
    folder = _adapter_of_classifier(tmp_path / "adapter", base)
    probe, merged = probe_of(source, folder), tmp_path / "m"
    merge_proven(source, folder, merged)
    change(merged, lambda tensors: {n: one for n, one in tensors.items() if n != "score.weight"})
    assert refused(source, probe, merged) > 0.1


def _adapter_of_classifier(folder: Path, base: Path) -> Path:
    torch.manual_seed(0)
    model = LlamaForSequenceClassification.from_pretrained(base, dtype=torch.float32)
    section = LoraSection(method="lora", r=4, target_modules=("q_proj",))
    adapted = attach(section, model, "SEQ_CLS", ["score"])
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(folder, adapted.peft_config["default"], trained_tensors(adapted), str(base))
    return folder


def test_a_rejected_merge_is_out_of_the_way(
    source: Source, folder: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = probe_of(source, write_adapter(tmp_path / "other", base, seed=7))
    probe.save(folder / "probe.safetensors")
    with pytest.raises(
        ParityError,
        match=r"^The merge is rejected, see .*m\.rejected: the merged model's scores differ by",
    ):
        merge_proven(source, folder, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    report = json.loads((tmp_path / "m.rejected" / REPORT).read_text())
    assert report["accepted"] is False and report["parity"]["difference"] > 0.1


def test_a_folder_that_does_not_open_is_refused(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    merge_proven(source, folder, tmp_path / "m", verify=False)
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(ParityError, match="a fresh process could not open it: "):
        proven(source, probe_of(source, folder), tmp_path / "m")


@pytest.mark.fresh_process
def test_the_process_is_fresh_and_without_peftune(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    merge_proven(source, folder, tmp_path / "m")
    assert json.loads((tmp_path / "m" / REPORT).read_text())["parity"]["difference"] < 1e-5


def test_an_adapter_whose_file_is_another_is_refused(
    source: Source, folder: Path, base: Path, tmp_path: Path
) -> None:
    """The merged model was made before the file was replaced."""
    probe = probe_of(source, folder)
    other = write_adapter(tmp_path / "other", base, seed=7)
    with pytest.raises(ParityError, match=r"^the adapter's scores differ by"):
        prove(probe, {opened_adapter(source, other): source.bound}, source.chooses)


def test_scores_of_another_shape_are_refused(source: Source, folder: Path) -> None:
    probe = probe_of(source, folder)
    with pytest.raises(
        ParityError, match=r"have the shape \(64, 95\), those of training had \(64, 96\)"
    ):
        compared(probe, probe.adapted[:, 1:], 1e-4, chooses=True)


def test_a_probe_is_read_back(source: Source, folder: Path, tmp_path: Path) -> None:
    probe = probe_of(source, folder)
    probe.save(tmp_path / "p.safetensors")
    again = Probe.load(tmp_path / "p.safetensors")
    assert again.inputs.keys() == probe.inputs.keys() and again.places.keys() == probe.places.keys()
    assert torch.equal(again.adapted, probe.adapted) and torch.equal(again.base, probe.base)


@pytest.mark.parametrize("method", ["bnb-nf4", "bnb-int8"])
def test_a_merged_model_in_bits(method: str, source: Source, folder: Path, tmp_path: Path) -> None:
    """It loads as it is, and is nearer to the adapted model than the base is."""
    merge_into_bits(source, folder, tmp_path / "bits", method)
    report = json.loads((tmp_path / "bits" / REPORT).read_text())
    assert report["accepted"] is True and report["quantization"] == method
    assert 1e-4 < report["parity"]["difference"] < report["parity"]["adapter_effect"]
    assert "quantization_config" in (tmp_path / "bits" / "config.json").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter", "bits"}


def test_an_adapter_without_a_recipe(folder: Path, base: Path, tmp_path: Path) -> None:
    """Its own configuration says which base and head it has."""
    found = source_at(folder, [], None, None)
    assert found.model.model_name_or_path == str(base) and found.model.dtype == "float32"
    assert found.head.objective.name == "causal"
    merge_proven(found, folder, tmp_path / "m")
    with pytest.raises(RecipeError, match=r"has no recipe that seed=1 could change"):
        source_at(folder, ["seed=1"], None, None)
    with pytest.raises(RecipeError, match=r"--also: x is not FOLDER=WEIGHT"):
        weighted(["x"])
