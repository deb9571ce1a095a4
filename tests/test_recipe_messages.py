"""Answers to recipe mistakes must lead somewhere: what they propose has to be accepted."""

from pathlib import Path
from typing import Any

import pytest

from peftune.errors import RecipeError
from peftune.recipe import load_recipe
from tests.conftest import write_recipe


def refusal(folder: Path, tree: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write_recipe(folder, tree), list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        (
            "adapter={method: ia3, r: 4}",
            "adapter.r: not a key of this method; it belongs to lora and dora.",
        ),
        (
            "adapter={method: dora, init_lora_weights: pissa}",
            "adapter.init_lora_weights: not a key of this method; it belongs to lora.",
        ),
        (
            "quantization={method: bnb-int8, double_quant: true}",
            "quantization.double_quant: not a key of this method; it belongs to bnb-nf4 and "
            "bnb-fp4.",
        ),
    ],
)
def test_a_key_of_another_method_is_named_as_such(
    override: str, answer: str, tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    assert refusal(tmp_path, recipe_tree, override).endswith(answer)


@pytest.mark.parametrize(("typed", "read"), [("2e-4", 2e-4), ("1e5", 1e5), ("2.5e3", 2500.0)])
def test_the_proposed_spelling_of_a_number_loads(
    typed: str, read: float, tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    recipe_tree["train"]["learning_rate"] = "SPELLED"
    path = write_recipe(tmp_path, recipe_tree)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("SPELLED", typed), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    proposed = str(caught.value).rpartition("write ")[2].removesuffix(".")
    path.write_text(text.replace("SPELLED", proposed), encoding="utf-8")
    assert load_recipe(path).train.learning_rate == read


def test_a_whole_number_is_proposed_where_one_is_needed(
    tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    recipe_tree["train"]["max_steps"] = "1e3"
    assert refusal(tmp_path, recipe_tree).endswith("write 1000.")


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_numbers_must_be_finite(value: str, tmp_path: Path, recipe_tree: dict[str, Any]) -> None:
    assert "train.learning_rate" in refusal(tmp_path, recipe_tree, f"train.learning_rate={value}")


def test_clipping_may_be_switched_off(tmp_path: Path, recipe_tree: dict[str, Any]) -> None:
    recipe = load_recipe(write_recipe(tmp_path, recipe_tree), ["train.max_grad_norm=.inf"])
    assert recipe.train.max_grad_norm == float("inf")


@pytest.mark.parametrize("value", ["2024-99-99", "[" * 3000 + "]" * 3000])
def test_an_override_that_yaml_cannot_read_is_one_line(
    value: str, tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    assert refusal(tmp_path, recipe_tree, f"train.run_name={value}").endswith(
        "the value is not valid YAML."
    )


@pytest.mark.parametrize("line", ['seed: !!int "7"', "<<: {seed: 5}"])
def test_tags_and_merge_keys_are_refused(
    line: str, tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    del recipe_tree["seed"]
    path = write_recipe(tmp_path, recipe_tree)
    path.write_text(path.read_text(encoding="utf-8") + f"{line}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"tags .* and merge keys .* are not allowed"):
        load_recipe(path)
