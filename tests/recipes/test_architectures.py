"""What is particular to one architecture."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from peftune.cli import report_errors, train_recipe
from peftune.preparation import prepare_data
from peftune.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.recipes.test_library import both_logits, small

SEEING = REPOSITORY / "recipes" / "decoder" / "gemma-3-4b-summarize.yaml"
RELATIVE = REPOSITORY / "recipes" / "encoder" / "deberta-v3-base-similarity.yaml"
Toys = Callable[[str], Path]


def test_named_layers_are_those_of_the_language_model(toys: Toys, tmp_path: Path) -> None:
    """The image encoder has layers of the same names, which text never passes."""
    overrides = small(load_recipe(SEEING), toys("google/gemma-3-4b-it"), tmp_path)
    train_recipe(str(SEEING), [*overrides, "adapter.target_modules=[q_proj, v_proj]"])
    names = load_file(tmp_path / "run" / "adapter_model.safetensors").keys()
    inside = "base_model.model.model.language_model.layers."
    assert len(names) == 2 * 2 * 2
    assert all(name.startswith(inside) for name in names)


def test_layers_of_the_image_encoder_alone_are_unknown(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small(load_recipe(SEEING), toys("google/gemma-3-4b-it"), tmp_path)
    overrides.append("adapter.target_modules=[out_proj]")
    assert report_errors(False, train_recipe, str(SEEING), overrides) == 2
    assert "adapter.target_modules: no linear layer named 'out_proj'" in capsys.readouterr().err


def test_an_attention_kernel_that_is_missing_names_its_key(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = toys("microsoft/deberta-v3-base")
    overrides = [*small(load_recipe(RELATIVE), base, tmp_path), "model.attn_implementation=sdpa"]
    assert report_errors(False, train_recipe, str(RELATIVE), overrides) == 2
    message = f"error: model.attn_implementation: transformers has no sdpa for '{base}'; set eager."
    assert message in capsys.readouterr().err


def test_a_translation_model_starts_with_the_code_of_its_target(toys: Toys, tmp_path: Path) -> None:
    """Learnt in front of every target, and forced on whoever generates with the merged model."""
    path = REPOSITORY / "recipes" / "encoder-decoder" / "nllb-600m-translate.yaml"
    overrides = small(load_recipe(path), toys("facebook/nllb-200-distilled-600M"), tmp_path)
    train_recipe(str(path), overrides)
    merged = tmp_path / "run" / "merged"
    code = AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids("eng_Latn")
    assert GenerationConfig.from_pretrained(merged).forced_bos_token_id == code
    assert prepare_data(load_recipe(path, overrides)).rows["train"][0].labels[0] == code


def test_generation_settings_in_an_old_configuration_do_no_harm(toys: Toys, tmp_path: Path) -> None:
    """As BART's on the Hub has them; transformers no longer writes such a file."""
    path = REPOSITORY / "recipes" / "encoder-decoder" / "bart-base-summarize.yaml"
    base = tmp_path / "bart"
    shutil.copytree(toys("facebook/bart-base"), base)
    old = {"num_beams": 4, "no_repeat_ngram_size": 3, "early_stopping": True, "min_length": 12}
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **old, "forced_bos_token_id": 0}))
    (base / "generation_config.json").unlink()
    train_recipe(str(path), small(load_recipe(path), base, tmp_path))
    settings = GenerationConfig.from_pretrained(tmp_path / "run" / "merged")
    assert settings.no_repeat_ngram_size is None
    assert settings.forced_bos_token_id is None
    torch.testing.assert_close(*both_logits(tmp_path / "run", base), rtol=1e-5, atol=1e-5)


def classifier(base: Path, folder: Path) -> tuple[str, list[str]]:
    """The recipe of a classifier, with another model in it."""
    path = REPOSITORY / "recipes" / "encoder" / "bert-base-classify.yaml"
    return str(path), [*small(load_recipe(path), base, folder), "adapter.target_modules=all-linear"]


def test_a_model_that_sees_can_classify_text(toys: Toys, tmp_path: Path) -> None:
    base = toys("google/gemma-3-4b-it")
    train_recipe(*classifier(base, tmp_path))
    torch.testing.assert_close(*both_logits(tmp_path / "run", base), rtol=1e-5, atol=1e-5)
    names = load_file(tmp_path / "run" / "adapter_model.safetensors").keys()
    assert not any("vision" in name for name in names)


@pytest.mark.parametrize("override", ["seed=1", "quantization.method=bnb-nf4"])
def test_an_architecture_without_the_output_layer_is_refused(
    override: str, toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, overrides = classifier(toys("facebook/nllb-200-distilled-600M"), tmp_path)
    assert report_errors(False, train_recipe, path, [*overrides, override]) == 2
    assert (
        "error: task: classify needs an output layer that transformers does not have for models of "
        "type 'm2m_100'; choose another model.\n" in capsys.readouterr().err
    )
