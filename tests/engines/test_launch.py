"""Reading the launcher's environment: what is asked for is what is given, or an error."""

from pathlib import Path
from typing import Any

import pytest

from peftune.compatibility import check_recipe
from peftune.engines.launch import check_device, read_launch
from peftune.errors import LaunchError
from peftune.recipe import load_recipe
from tests.conftest import write_recipe

ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2", "RANK": "1"}
FSDP = {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environ", "engine"),
    [
        ({}, "ddp"),
        ({"WORLD_SIZE": "8"}, "ddp"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "zero1"),
        (ZERO, "zero2"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3"),
        ({**FSDP, "FSDP_VERSION": "2"}, "fsdp2"),
    ],
)
def test_the_engine_is_the_one_asked_for(environ: dict[str, str], engine: str) -> None:
    assert read_launch(environ).engine == engine


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**FSDP, "FSDP_VERSION": "1"}, "fsdp_version: 1 is not supported"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "zero_stage: 0"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "x.json"}, "deepspeed_config_file"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "dynamo_backend .*INDUCTOR"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "megatron_lm_config"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism_config"),
        ({"MASTER_ADDR": "127.0.0.1"}, "several processes were asked for and one was started"),
    ],
)
def test_what_would_change_numbers_or_is_not_there_is_refused(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(LaunchError, match=message):
        read_launch(environ)


@pytest.mark.parametrize(
    "environ",
    [{"WORLD_SIZE": "8"}, ZERO, {**FSDP, "FSDP_VERSION": "2"}, {"CUDA_VISIBLE_DEVICES": "0"}],
)
def test_gpus_that_are_not_there_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match="this machine has none"):
        check_device(read_launch(environ), gpus=0)
    check_device(read_launch(environ), gpus=8)


@pytest.mark.parametrize("hidden", ["", "-1,-1"])
def test_hidden_gpus_mean_cpu_ranks(hidden: str) -> None:
    check_device(read_launch({"WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": hidden}), gpus=0)


def test_what_nobody_set_claims_nothing() -> None:
    """As the launcher hands it on without a file."""
    environ = {
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_GRADIENT_CLIPPING": "none",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
    assert read_launch(environ).claims == ()


@pytest.mark.parametrize(
    ("name", "value", "agreeing", "shown"),
    [
        (
            "ACCELERATE_MIXED_PRECISION",
            "bf16",
            "train.mixed_precision=bf16",
            "train.mixed_precision: 'no' (default), but the launcher says bf16 in mixed_precision "
            "(ACCELERATE_MIXED_PRECISION); remove it there, as the recipe decides this.",
        ),
        (
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            "2",
            "train.per_device_train_batch_size=4",
            "train.global_batch_size: 8 ({recipe}:{global_batch_size}) takes 4 forward passes per "
            "step, but the launcher says 2 in "
            "deepspeed_config.gradient_accumulation_steps (ACCELERATE_GRADIENT_ACCUMULATION_STEPS); "
            "remove it there, as the recipe decides this.",
        ),
        (
            "ACCELERATE_GRADIENT_CLIPPING",
            "0.5",
            "train.max_grad_norm=0.5",
            "train.max_grad_norm: 1.0 (default), but the launcher says 0.5 in "
            "deepspeed_config.gradient_clipping (ACCELERATE_GRADIENT_CLIPPING); remove it there, as "
            "the recipe decides this.",
        ),
        (
            "FSDP_ACTIVATION_CHECKPOINTING",
            "true",
            "train.gradient_checkpointing=true",
            "train.gradient_checkpointing: false (default), but the launcher says true in "
            "fsdp_config.fsdp_activation_checkpointing (FSDP_ACTIVATION_CHECKPOINTING); remove it "
            "there, as the recipe decides this.",
        ),
    ],
)
def test_recipe_and_launcher_must_agree(
    name: str, value: str, agreeing: str, shown: str, recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    path, launch = write_recipe(tmp_path, recipe_tree), read_launch({name: value})
    with pytest.raises(LaunchError) as refused:
        check_recipe(load_recipe(path), launch)
    numbers = {
        line.partition(":")[0].strip(): number
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    }
    assert str(refused.value) == shown.format(recipe=path, **numbers)
    check_recipe(load_recipe(path, [agreeing]), launch)


def test_every_conflict_is_told_at_once(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    path = write_recipe(tmp_path, recipe_tree)
    environ = {"ACCELERATE_MIXED_PRECISION": "fp16", "ACCELERATE_GRADIENT_CLIPPING": "2"}
    with pytest.raises(LaunchError) as refused:
        check_recipe(load_recipe(path, ["train.mixed_precision=bf16"]), read_launch(environ))
    first, second = str(refused.value).splitlines()
    assert first.startswith("train.mixed_precision: bf16 (override), but the launcher says fp16 in")
    assert second.startswith("train.max_grad_norm: 1.0 (default), but the launcher says 2 in")
