"""What a token costs when one thing changes at a time, and what each shortcut has a share in.

    python benchmarks/curves.py [--only vocabulary ladder …] [--out FILE.json]

Each point is a process of its own, so that its peak memory is its own: a decoder of about 20 M parameters
beside its vocabulary, in float32 on the CPU, about 4,000 real tokens a step. Prints a JSON line for each.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

TOKENS, WARMUP, STEPS = 4096, 1, 4
BASE: dict[str, Any] = {
    "length": 256,
    "spread": 0.45,
    "supervised": 0.13,
    "vocabulary": 32_768,
    "rank": 16,
    "rows": None,
    "quantization": None,
    "allocator": True,
    "shortcuts": ["unpad", "head", "fuse"],
}
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "padding": [{"spread": spread} for spread in (0.0, 0.3, 0.6, 0.9)],
    "vocabulary": [{"vocabulary": size} for size in (8192, 32_768, 131_072)],
    "supervised": [{"supervised": share} for share in (0.05, 0.25, 0.5, 1.0)],
    "length": [{"length": 2**power, "spread": 0.0} for power in (6, 8, 10, 12, 13)],
    "rank": [{"rank": rank} for rank in (4, 16, 64)],
    "micro-batch": [{"rows": rows} for rows in (1, 4, 16, 32)],
    "quantization": [{"quantization": method} for method in (None, "bnb-nf4", "bnb-int8")],
    # Added one at a time.
    "ladder": [
        {"allocator": False, "shortcuts": []},
        {"shortcuts": []},
        {"shortcuts": ["unpad"]},
        {"shortcuts": ["unpad", "head"]},
        {"shortcuts": ["unpad", "head", "fuse"]},
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--only", nargs="+", choices=SWEEPS, default=[*SWEEPS])
    parser.add_argument("--out")
    parser.add_argument("--point", help="a point as JSON, in this process")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    if arguments.point:
        point = json.loads(arguments.point)
        if point["allocator"]:
            from peftune.allocator import start_with_settings

            start_with_settings()
        print(json.dumps(measured(point)))
        return
    found = []
    for sweep, point in points(arguments.only, arguments.toy):
        command = [sys.executable, __file__, "--point", json.dumps({**BASE, **point})]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append({"sweep": sweep, **point, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(found[-1]), flush=True)
        if arguments.out:
            Path(arguments.out).write_text(json.dumps(found, indent=2) + "\n")


def points(only: list[str], toy: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for sweep in only:
        for point in SWEEPS[sweep][:1] if toy else SWEEPS[sweep]:
            yield sweep, {**point, **({"toy": True} if toy else {})}


def measured(point: dict[str, Any]) -> dict[str, Any]:
    """Speed, memory, loss and gradient norm at a point."""
    import torch
    from steps import by_peftune

    from peftune.data.rows import RowTuple

    tokens = 256 if point.get("toy") else max(TOKENS, point["length"])
    batch = point["rows"] or max(1, tokens // point["length"])
    rows = RowTuple(made_rows(point, batch * (WARMUP + STEPS)))
    model = model_of(point)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shortcuts = tuple(point["shortcuts"])
    steps = by_peftune(
        model, rows, batch, False, torch.device("cpu"), rank=point["rank"], shortcuts=shortcuts
    )
    seconds = [step[0] for step in steps[WARMUP:]]
    real = sum(len(row.input_ids) for row in rows) / (WARMUP + STEPS)
    return {
        "rows_per_step": batch,
        "tokens_per_step": real,
        "microseconds_per_token": statistics.median(seconds) / real * 1e6,
        "weights_gb": start * 1024 / 1e9,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "first": steps[0][1:],
        "last": steps[-1][1:],
    }


def made_rows(point: dict[str, Any], count: int) -> list[Any]:
    from workloads import length

    from peftune.data.rows import IGNORED, EncodedRow

    draw, rows = random.Random(0), []
    for index in range(count):
        tokens = length(draw, point["length"], point["spread"], least=4)
        ids = tuple(draw.randrange(2, point["vocabulary"]) for _ in range(tokens))
        hidden = min(tokens - 1, max(1, round(tokens * (1 - point["supervised"]))))
        rows.append(EncodedRow(ids, (IGNORED,) * hidden + ids[hidden:], (), index))
    return rows


def model_of(point: dict[str, Any]) -> Any:
    """The decoder, quantized as the recipe's quantization would."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from peftune.quantization import BACKENDS
    from peftune.quantization.bnb4bit import Bnb4bitSection
    from peftune.quantization.bnb8bit import Bnb8bitSection

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=point["vocabulary"],
        hidden_size=64 if point.get("toy") else 512,
        intermediate_size=128 if point.get("toy") else 1408,
        num_hidden_layers=2 if point.get("toy") else 6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    if point["quantization"]:
        kinds = {"bnb-nf4": Bnb4bitSection, "bnb-int8": Bnb8bitSection}
        section = kinds[point["quantization"]](method=point["quantization"])
        backend = BACKENDS[point["quantization"]]
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            keys = backend.load_kwargs(section, "float32", False, [])
            model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, **keys)
        backend.prepare(model)
    model.set_attn_implementation("sdpa")
    return model.requires_grad_(False)


if __name__ == "__main__":
    main()
