"""peftune beside other trainers on the same work: speed, memory, and that the work is the same.

    python benchmarks/compare.py --kind decoder --dtype float32 --rounds 3 --peers ENVIRONMENT

Contenders run in turn as whole processes (A B A B …): the same weights, encoded rows, order, precision,
LoRA and optimizer. Other trainers run in ENVIRONMENT, which `make bench` makes from pinned versions.
Prints a table and writes `compare-KIND-DTYPE.json` with every figure.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

from plots import plot  # noqa: E402
from rate import matrix_product_rate, needed_operations  # noqa: E402
from running import FACTORY, TRL, Result, kind_of, runner  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from workloads import WORKLOADS, Workload, recipe, write  # noqa: E402

from peftune.adapters import attach  # noqa: E402
from peftune.artefacts import load_frozen  # noqa: E402
from peftune.data.order import step_rows  # noqa: E402
from peftune.preparation import Prepared, prepare_data  # noqa: E402
from peftune.recipe import Recipe, load_recipe  # noqa: E402
from peftune.training.randomness import seed_initialisation  # noqa: E402

WARMUP = 1
"""First steps that no speed is taken from."""


def main() -> None:
    arguments = parsed()
    workload = WORKLOADS[arguments.kind]
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(workload, workload.batch * arguments.steps, folder)
        tokens = encode(workload, folder, arguments)
        run = runner(workload, folder, arguments)
        names = ["peftune", *contenders(workload, arguments)]
        rounds = [
            {name: summary(run(name), tokens) for name in names} for _ in range(arguments.rounds)
        ]
        rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    limit = limits(workload, arguments, rows)
    report = described(arguments, rounds, limit, sum(tokens) / len(tokens))
    file = (
        Path(arguments.out) / f"compare-{arguments.kind}-{arguments.dtype}{suffix(arguments)}.json"
    )
    file.write_text(json.dumps(report, indent=2) + "\n")
    plot(report, file.with_suffix(".png"))
    print(table(report))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kind", choices=WORKLOADS, default="decoder")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--quantization", choices=["bnb-nf4", "bnb-int8"])
    parser.add_argument("--most-tokens", type=int, help="peftune's train.max_tokens_per_pass")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers", help="Python environment of the other trainers; without it none")
    parser.add_argument(
        "--only", nargs="+", help="names of other trainers; without it all that fit"
    )
    parser.add_argument("--out", default=".")
    return parser.parse_args()


def suffix(arguments: argparse.Namespace) -> str:
    tokens = f"-{arguments.most_tokens}-tokens" if arguments.most_tokens else ""
    return f"-{arguments.quantization}{tokens}" if arguments.quantization else tokens


def contenders(workload: Workload, arguments: argparse.Namespace) -> list[str]:
    if arguments.peers is None:
        return []
    fitting = [*TRL, FACTORY] if kind_of(workload) == "decoder" else ["transformers"]
    if arguments.quantization or not Path(f"{arguments.peers}-{FACTORY}").is_dir():
        fitting = [name for name in fitting if name != FACTORY]
    return [name for name in fitting if arguments.only is None or name in arguments.only]


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen: dict[str, Any] = {"model": {"dtype": arguments.dtype}}
    if arguments.quantization:
        chosen["quantization"] = {"method": arguments.quantization}
        if arguments.quantization == "bnb-nf4":
            chosen["quantization"]["compute_dtype"] = arguments.dtype
    if arguments.most_tokens:
        chosen["train"] = {"max_tokens_per_pass": arguments.most_tokens}
    return chosen


def encode(workload: Workload, folder: Path, arguments: argparse.Namespace) -> list[int]:
    """Write the recipe, and the rows as peftune encodes them in the order it trains on them.

    Answers with the tokens of each step, targets of an encoder-decoder included.
    """
    tree = recipe(workload, folder, arguments.steps, options(arguments))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    chosen = load_recipe(folder / "recipe.yaml")
    prepared = prepare_data(chosen)
    rows = prepared.rows["train"]
    ids = [
        step_rows(tree["seed"], step, len(rows), workload.batch) for step in range(arguments.steps)
    ]
    with (folder / "rows.jsonl").open("w") as out:
        for index in (i for step in ids for i in step):
            row = {"input_ids": list(rows[index].input_ids), "labels": list(rows[index].labels)}
            out.write(json.dumps(row) + "\n")
    save_start(chosen, prepared, folder)
    both = kind_of(workload) == "encoder-decoder"
    return [
        sum(len(rows[i].input_ids) + (len(rows[i].labels) if both else 0) for i in step)
        for step in ids
    ]


def summary(found: Result, tokens: list[int]) -> Result:
    seconds = sum(found["seconds"][WARMUP:])
    return {
        "tokens_per_second": sum(tokens[WARMUP:]) / seconds,
        "seconds_per_step": seconds / len(found["seconds"][WARMUP:]),
        "first_step_s": found["first_step_s"],
        "peak_gb": found["peak_bytes"] / 1e9,
        "first": {"loss": found["loss"][0], "grad_norm": found["grad_norm"][0]},
        "last": {"loss": found["loss"][-1], "grad_norm": found["grad_norm"][-1]},
        "versions": found["versions"],
    }


def save_start(chosen: Recipe, prepared: Prepared, folder: Path) -> None:
    """What training starts from, drawn as peftune draws it, for contenders that draw in other ways."""
    seed_initialisation(chosen.seed)
    model, new = load_frozen(chosen, prepared.head, "cpu", False)
    seed_initialisation(chosen.seed)
    adapted = attach(chosen.adapter, model, prepared.objective.task_type, new)
    start = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    save_file(start, folder / "start.safetensors")


def limits(
    workload: Workload, arguments: argparse.Namespace, rows: list[Result]
) -> dict[str, float]:
    # Where a processor has no units for bfloat16, float32 is what it allows.
    rate = max(
        matrix_product_rate(name, arguments.threads) for name in (arguments.dtype, "float32")
    )
    needed = needed_operations(workload.model(workload.vocabulary), rows)
    return {"matrix_product_gflops": rate / 1e9, "limit_tokens_per_second": rate / needed}


def described(
    arguments: argparse.Namespace,
    rounds: list[dict[str, Result]],
    limit: dict[str, float],
    tokens: float,
) -> dict[str, Any]:
    names = [*rounds[0]]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kind": arguments.kind,
        "dtype": arguments.dtype,
        "quantization": arguments.quantization,
        "max_tokens_per_pass": arguments.most_tokens,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "tokens_per_step": tokens,
        **limit,
        "contenders": {name: [one[name] for one in rounds] for name in names},
        "ratios": {
            name: {
                "speed": ratios(rounds, name, "tokens_per_second"),
                "memory": ratios(rounds, name, "peak_gb"),
                "first_step": ratios(rounds, name, "first_step_s"),
            }
            for name in names[1:]
        },
    }


def ratios(rounds: list[dict[str, Result]], name: str, key: str) -> dict[str, float]:
    """peftune's figure over the other's, paired by round."""
    found = [one["peftune"][key] / one[name][key] for one in rounds]
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def table(report: dict[str, Any]) -> str:
    """Medians over the rounds."""
    limit = report["limit_tokens_per_second"]
    lines = [f"limit {limit:,.0f} tokens/s ({report['matrix_product_gflops']:.0f} GFLOP/s)"]
    for name, rounds in report["contenders"].items():
        speed = statistics.median(one["tokens_per_second"] for one in rounds)
        peak = statistics.median(one["peak_gb"] for one in rounds)
        first = statistics.median(one["first_step_s"] for one in rounds)
        ends = rounds[-1]["first"], rounds[-1]["last"]
        shown = " ".join(f"{one['loss']:.4f}/{one['grad_norm']:.4f}" for one in ends)
        ratio = report["ratios"].get(name, {}).get("speed")
        compared = (
            ""
            if ratio is None
            else f"  x{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
        )
        lines.append(
            f"{name:14}{speed:8,.0f} tokens/s {speed / limit:5.0%} of the limit {peak:6.2f} GB "
            f"{first:6.1f} s to step 1  loss/norm {shown}{compared}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
