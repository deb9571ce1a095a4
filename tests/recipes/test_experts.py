"""A mixture of experts: what its fused weights can take, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from peftune.cli import report_errors, train_recipe
from peftune.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.recipes.test_library import small

RECIPE = REPOSITORY / "recipes" / "decoder" / "olmoe-7b-experts.yaml"


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        (
            "adapter.target_parameters=[mlp.experts.up_proj]",
            "adapter.target_parameters: no fused weight of experts named 'mlp.experts.up_proj'. Did "
            "you mean mlp.experts.gate_up_proj? There are: mlp.experts.down_proj, "
            "mlp.experts.gate_up_proj.",
        ),
        (
            "adapter.lora_dropout=0.1",
            "adapter: target_parameters: experts cannot have lora_dropout; set it to 0.0.",
        ),
        (
            "adapter.init_lora_weights=olora",
            "adapter: target_parameters: experts need init_lora_weights: true.",
        ),
        (
            "quantization.method=bnb-nf4",
            "adapter.target_parameters: [mlp.experts.gate_up_proj, mlp.experts.down_proj] needs plain "
            "experts: bitsandbytes quantizes linear layers only; the nearest green cell has no "
            "adapter.target_parameters.",
        ),
        (
            "adapter.target_parameters=[] quantization.method=bnb-nf4",
            "quantization.method: bnb-nf4 cannot hold fused experts, 64% of this model",
        ),
    ],
)
def test_what_experts_cannot_take_is_refused(
    override: str, answer: str, toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = load_recipe(RECIPE)
    overrides = small(shipped, toys(shipped.model.model_name_or_path), tmp_path)
    assert report_errors(False, train_recipe, str(RECIPE), [*overrides, *override.split()]) == 2
    assert answer in capsys.readouterr().err


def test_a_model_without_experts_says_so(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = load_recipe(RECIPE)
    overrides = small(shipped, toys("HuggingFaceTB/SmolLM2-360M-Instruct"), tmp_path)
    assert report_errors(False, train_recipe, str(RECIPE), overrides) == 2
    assert "The model has no experts." in capsys.readouterr().err


def test_each_expert_learns_an_update_of_its_own(toys: Any, tmp_path: Path) -> None:
    """In the merged model every weight that had an adapter has moved, each expert differently."""
    from transformers import AutoModelForCausalLM

    shipped = load_recipe(RECIPE)
    base = toys(shipped.model.model_name_or_path)
    train_recipe(str(RECIPE), small(shipped, base, tmp_path))
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "merged").state_dict()
    for weight in ("gate_up_proj", "down_proj"):
        name = f"model.layers.0.mlp.experts.{weight}"
        moved = (after[name] - before[name]).flatten(1)
        assert (moved.norm(dim=1) > 0).all()
        assert not torch.allclose(moved[0], moved[1])


def test_all_linear_layers_are_those_of_attention(toys: Any) -> None:
    """peft counts what was a linear layer of an expert before the experts became one tensor."""
    from transformers import AutoModelForCausalLM

    from peftune.adapters import attach
    from peftune.adapters.lora import LoraSection

    model = AutoModelForCausalLM.from_pretrained(toys("allenai/OLMoE-1B-7B-0924-Instruct"))
    adapted = attach(LoraSection(method="lora", r=4), model)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    layers = {name.partition(".lora_")[0].rsplit(".", 1)[-1] for name in trained}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj"}
