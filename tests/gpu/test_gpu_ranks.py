"""What two GPUs can show: every engine shares the work and gives the numbers of one GPU."""

from pathlib import Path

import pytest

from peftune.matrix import MATRIX
from tests.gpu.gpus import ROUNDING, apart, gpu_run, needs
from tests.gpu.test_one_gpu import ENGINES, keys
from tests.launching import adapter_difference

pytestmark = needs(2)
CELLS = [
    (engine, quantization, adapter)
    for engine in ENGINES
    for quantization in MATRIX.axes["quantization"]
    for adapter in ("lora", "dora", "ia3")
    if MATRIX.rule(
        MATRIX.cell(
            {
                "device": "gpu",
                "engine": engine.replace("_", "-"),
                "quantization": quantization,
                "adapter": adapter,
            }
        )
    ).state
    == "unproven"
]


@pytest.fixture(scope="module")
def alone(gpu_recipe: Path) -> dict[tuple[str, str], Path]:
    """One GPU's run for each quantization and adapter."""
    pairs = sorted({(quantization, adapter) for _, quantization, adapter in CELLS})
    return {
        pair: gpu_run("single_gpu", 1, gpu_recipe, gpu_recipe.parent / "-".join(pair), *keys(*pair))
        for pair in pairs
    }


@pytest.mark.parametrize(("engine", "quantization", "adapter"), CELLS)
def test_two_gpus_give_the_numbers_of_one(
    engine: str,
    quantization: str,
    adapter: str,
    alone: dict[tuple[str, str], Path],
    gpu_recipe: Path,
    tmp_path: Path,
) -> None:
    one = alone[quantization, adapter]
    run = gpu_run(engine, 2, gpu_recipe, tmp_path / "two", *keys(quantization, adapter))
    assert apart(one, run) < ROUNDING
    assert adapter_difference(one, run) < 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp2"])
def test_half_precision_does_not_feel_the_layout(
    engine: str, precision: str, gpu_recipe: Path, tmp_path: Path
) -> None:
    chosen = f"train.mixed_precision={precision}"
    one = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / "one", chosen)
    two = gpu_run(engine, 2, gpu_recipe, tmp_path / "two", chosen)
    assert apart(one, two) < 0.02
