"""Reading the launcher's environment: what is asked for is what is given, or an error."""

import pytest

from peftune.engines.launch import check_device, read_launch
from peftune.errors import LaunchError

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
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps: 4"),
        ({**ZERO, "ACCELERATE_GRADIENT_CLIPPING": "1.0"}, "gradient_clipping: 1.0"),
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
