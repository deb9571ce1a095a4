"""What one GPU can show: its kernels, its number formats, its attention, its optimizers."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gpu.gpus import ROUNDING, apart, gpu_run, losses, needs
from tests.launching import launch

pytestmark = needs(1)
METHODS = ("bnb-nf4", "bnb-fp4", "bnb-int8")
# The code book is the same everywhere; on a GPU int8 also rounds the activations to 8 bits.
AGAINST_CPU = {"none": ROUNDING, "bnb-nf4": 1e-3, "bnb-fp4": 1e-3, "bnb-int8": 0.03}
ENGINES = ("ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2", "fsdp2_offload")


def keys(quantization: str, adapter: str = "lora") -> tuple[str, ...]:
    chosen = [f"adapter.method={adapter}"]
    if adapter == "ia3":
        chosen.append("train.learning_rate=3.0e-2")
    if quantization != "none":
        chosen.append(f"quantization.method={quantization}")
    return tuple(chosen)


@pytest.fixture(scope="module")
def plain(gpu_recipe: Path) -> Path:
    return gpu_run("single_gpu", 1, gpu_recipe, gpu_recipe.parent / "plain")


@pytest.mark.parametrize("adapter", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("quantization", ["none", *METHODS])
def test_a_gpu_gives_the_numbers_of_the_cpu(
    quantization: str, adapter: str, gpu_recipe: Path, tmp_path: Path
) -> None:
    chosen = keys(quantization, adapter)
    on_cpu = launch("cpu", gpu_recipe, tmp_path / "cpu", *chosen)
    on_gpu = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / "gpu", *chosen)
    assert apart(on_cpu, on_gpu) < AGAINST_CPU[quantization]
    assert losses(on_gpu)[-1] < losses(on_gpu)[0]
    assert (on_gpu / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("quantization", METHODS)
def test_an_evaluation_in_between_changes_no_step(
    quantization: str, gpu_recipe: Path, tmp_path: Path
) -> None:
    """bitsandbytes must not rewrite its weights when a model is put into eval mode."""
    chosen = keys(quantization)
    often = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / "often", *chosen, "train.eval_steps=1")
    never = gpu_run(
        "single_gpu", 1, gpu_recipe, tmp_path / "never", *chosen, "train.eval_steps=null"
    )
    assert losses(often) == pytest.approx(losses(never), rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_stays_near_full_precision(
    precision: str, dtype: str, plain: Path, gpu_recipe: Path, tmp_path: Path
) -> None:
    """fp16 scales its gradients; a step that overflowed is skipped, and the loss stays finite."""
    chosen = (f"train.mixed_precision={precision}", f"model.dtype={dtype}")
    run = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / precision, *chosen)
    assert losses(run)[0] == pytest.approx(losses(plain)[0], rel=0.02)
    assert losses(run)[-1] < losses(run)[0]


@pytest.mark.parametrize("optimizer", ["adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_optimizers_of_bitsandbytes_follow_adamw(
    optimizer: str, plain: Path, gpu_recipe: Path, tmp_path: Path
) -> None:
    run = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / optimizer, f"train.optim={optimizer}")
    assert losses(run)[0] == pytest.approx(losses(plain)[0], rel=ROUNDING)
    # Tensors of fewer than 4,096 numbers keep a 32-bit state, so these adapters hardly differ.
    assert losses(run) == pytest.approx(losses(plain), rel=0.05)


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_attention_kernels_agree(attention: str, gpu_recipe: Path, tmp_path: Path) -> None:
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    half = ("model.dtype=bfloat16", "train.mixed_precision=bf16")
    sdpa = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / "sdpa", *half)
    chosen = f"model.attn_implementation={attention}"
    other = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / attention, *half, chosen)
    assert apart(sdpa, other) < 0.02


@pytest.mark.parametrize("quantization", ["none", "bnb-nf4", "bnb-int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_one_rank_of_each_engine(
    engine: str, quantization: str, gpu_recipe: Path, tmp_path: Path
) -> None:
    """Not sharing, but the same code paths: storage of packed bits, offload, gathering, saving."""
    if engine.startswith("fsdp2") and quantization == "bnb-int8":
        pytest.skip("the matrix refuses FSDP2 with int8")
    chosen = keys(quantization)
    alone = gpu_run("single_gpu", 1, gpu_recipe, tmp_path / "alone", *chosen)
    run = gpu_run(engine, 1, gpu_recipe, tmp_path / engine, *chosen)
    assert apart(alone, run) < ROUNDING
