"""How long a merge takes and how much memory, beside a copy of the same files and peft in memory.

python benchmarks/merge.py [--layers 36] [--pairs 3] [--out FILE.json]

Makes a Llama of random bfloat16 weights, about 4 GB in files of 500 MB, and a LoRA on all its linear
layers. In turn, each as a process of its own: a copy of the base model's files, peftune's merge, and
`merge_and_unload` with `save_pretrained`. Prints seconds, the largest resident memory, and the medians of
the paired ratios; the arithmetic alone is timed apart, on tensors that are in memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTH, INNER, VOCABULARY, RANK = 2048, 5632, 32_000, 16
SHARD = 500 * 10**6
WAYS = ("copy", "peftune", "peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--way", choices=[*WAYS, "make", "arithmetic"])
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    if arguments.way:
        one(arguments.way, Path(arguments.folder), arguments)
        return
    with tempfile.TemporaryDirectory() as place:
        report = compared(Path(place), arguments)
    print(json.dumps(report, indent=2))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")


def one(way: str, folder: Path, arguments: argparse.Namespace) -> None:
    """One way, in this process."""
    if way == "make":
        make(folder, arguments.layers, arguments.width)
    elif way == "copy":
        copy(folder)
    elif way == "peftune":
        by_peftune(folder)
    elif way == "peft":
        by_peft(folder)
    else:
        print(json.dumps(arithmetic(folder)), file=sys.stderr)


def compared(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    def start(way: str) -> dict[str, float]:
        shutil.rmtree(folder / "out", ignore_errors=True)
        sizes = ["--layers", str(arguments.layers), "--width", str(arguments.width)]
        command = [sys.executable, __file__, "--way", way, "--folder", str(folder), *sizes]
        peak = str(Path(__file__).with_name("peak.py"))
        started = time.perf_counter()
        done = subprocess.run([sys.executable, peak, *command], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
        said = json.loads(lines[-1]) if lines else {}
        taken = time.perf_counter() - started
        return {"seconds": taken, "peak_mb": int(done.stdout.split()[-1]) / 1e6, **said}

    start("make")
    rounds = [{way: start(way) for way in WAYS} for _ in range(arguments.pairs)]
    size = sum(file.stat().st_size for file in (folder / "base").glob("*.safetensors"))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "bytes": size,
        "largest_tensor_mb": max(VOCABULARY, INNER) * arguments.width * 2 / 1e6,
        "arithmetic": start("arithmetic"),
        "rounds": rounds,
        "medians": {
            way: {
                key: statistics.median(one[way][key] for one in rounds)
                for key in ("seconds", "work_s", "peak_mb")
            }
            for way in WAYS
        },
        "work_by_copy": statistics.median(
            one["peftune"]["work_s"] / one["copy"]["work_s"] for one in rounds
        ),
    }


def config(layers: int, width: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        dtype="bfloat16",
    )


def make(folder: Path, layers: int, width: int) -> None:
    """Base and adapter, a tensor at a time."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import LlamaForCausalLM

    from peftune.export.adapter import save_adapter

    with torch.device("meta"):
        model = LlamaForCausalLM(config(layers, width)).to(torch.bfloat16)
    base = folder / "base"
    model.config.save_pretrained(base)
    (base / "tokenizer.json").write_text("{}")
    write_shards(base, model.state_dict())
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, lora, low_cpu_mem_usage=True)
    draw = torch.Generator().manual_seed(1)
    tensors = {
        name: 0.02 * torch.randn(shape.shape, generator=draw)
        for name, shape in adapted.named_parameters()
        if "lora_" in name
    }
    assert len(tensors) == len(get_peft_model_state_dict(adapted))
    save_adapter(folder / "adapter", adapted.peft_config["default"], tensors, str(base))


def write_shards(base: Path, shapes: dict[str, Any]) -> None:
    import torch

    from peftune.export.tensor_file import TensorFile

    shards: list[dict[str, Any]] = [{}]
    for name, shape in shapes.items():
        if sum(one.nbytes for one in shards[-1].values()) + shape.nbytes > SHARD:
            shards.append({})
        shards[-1][name] = shape
    draw, where = torch.Generator().manual_seed(0), {}
    for index, shard in enumerate(shards):
        file = base / f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        with TensorFile(file, shard) as out:
            for name, shape in shard.items():
                value = 0.02 * torch.randn(shape.shape, generator=draw)
                out.write(name, value.to(shape.dtype))
                where[name] = file.name
    index_file = base / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": where}))


def copy(folder: Path) -> None:
    """The base model's weights, on the disk when it ends."""
    out, started = folder / "out", time.perf_counter()
    out.mkdir()
    for file in sorted((folder / "base").glob("*.safetensors")):
        with file.open("rb") as source, (out / file.name).open("wb") as target:
            shutil.copyfileobj(source, target, 2**24)
            target.flush()
            os.fsync(target.fileno())
    print(json.dumps({"work_s": time.perf_counter() - started}), file=sys.stderr)


def by_peftune(folder: Path) -> None:
    import torch

    from peftune.allocator import give_back_freed_memory
    from peftune.export.merge import merge
    from peftune.model.base import load_skeleton
    from peftune.model.head import Head
    from peftune.model.location import weight_files
    from peftune.model.section import ModelSection
    from peftune.objectives import OBJECTIVES

    started = time.perf_counter()
    section = ModelSection(model_name_or_path=str(folder / "base"), dtype="bfloat16")
    skeleton = load_skeleton(section, Head(OBJECTIVES["causal"]))
    files = weight_files(section)
    give_back_freed_memory()  # as `peftune merge` does
    merge(folder / "adapter", skeleton, files, folder / "out", torch.bfloat16, lambda written: None)
    print(json.dumps({"work_s": time.perf_counter() - started}), file=sys.stderr)


def by_peft(folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    started = time.perf_counter()
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="bfloat16")
    merged = PeftModel.from_pretrained(base, str(folder / "adapter")).merge_and_unload()
    merged.save_pretrained(folder / "out", max_shard_size="5GB")
    for file in (folder / "out").iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    print(json.dumps({"work_s": time.perf_counter() - started}), file=sys.stderr)


def arithmetic(folder: Path) -> dict[str, float]:
    """Seconds that sums and products of all adapted layers take by themselves."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    taken = 0.0
    for name, low in tensors.items():
        if ".lora_A." in name:
            high = tensors[name.replace(".lora_A.", ".lora_B.")]
            weight = torch.zeros(len(high), low.shape[1], dtype=torch.bfloat16)
            started = time.perf_counter()
            (weight.float() + 2.0 * (high @ low)).to(torch.bfloat16)
            taken += time.perf_counter() - started
    return {"seconds_of_sums_and_products": taken}


if __name__ == "__main__":
    main()
