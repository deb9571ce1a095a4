"""How long the first step of `recipes/summarize.yaml` takes to be done, beside a script without peftune.

python benchmarks/start.py [--pairs 5] [--out FILE.json]

The store of encoded rows exists, as after any first run. Both start in turn, as a command each, and
again both by `accelerate launch`; prints the seconds from a command to the end of its first optimizer
step, and the median of the paired ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

from running import environment  # noqa: E402

RECIPE = REPOSITORY / "recipes" / "summarize.yaml"
EMBEDDED = REPOSITORY / "peftune" / "embedded"
BARE = [str(REPOSITORY / "benchmarks" / "contenders" / "bare.py"), str(EMBEDDED / "decoder")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        subprocess.run([tool("peftune"), "prepare", str(RECIPE)], check=True, capture_output=True)
        for way, (ours, bare) in commands(run, Path(place) / "step").items():
            ends = run / "timings.jsonl", Path(place) / "step"
            pairs = [
                (
                    seconds(ours, arguments.threads, ends[0]),
                    seconds(bare, arguments.threads, ends[1]),
                )
                for _ in range(arguments.pairs)
            ]
            found[way] = summary(pairs)
            print(json.dumps({way: found[way]}), flush=True)
    if arguments.out:
        report = {"date": time.strftime("%Y-%m-%d"), **found}
        Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def commands(run: Path, step: Path) -> dict[str, tuple[list[str], list[str]]]:
    """By how they are started: peftune's command, and that of the script."""
    launcher = [
        *(tool("accelerate"), "launch", "--config_file"),
        str(REPOSITORY / "accelerate_configs" / "cpu.yaml"),
    ]
    bare = [*BARE, str(EMBEDDED / "dialogues" / "train.jsonl"), str(step)]
    out = f"output_dir={run}"
    script = str(REPOSITORY / "peftune" / "run.py")
    return {
        "as a command": ([tool("peftune"), "train", str(RECIPE), out], [sys.executable, *bare]),
        "by accelerate launch": ([*launcher, script, str(RECIPE), out], [*launcher, *bare]),
    }


def seconds(command: list[str], threads: int, log: Path) -> float:
    """From the start of a command to the end of its first step, when `log` gets its first line."""
    log.unlink(missing_ok=True)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment(threads), cwd=REPOSITORY, start_new_session=True, **quiet
    )
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.002)
    taken = time.perf_counter() - started
    if not (log.exists() and log.stat().st_size):
        raise SystemExit(f"{' '.join(command)} made no step")
    subprocess.run(["pkill", "-9", "-s", str(process.pid)], check=False)
    process.wait()
    return taken


def summary(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = [ours / bare for ours, bare in pairs]
    return {
        "peftune_s": round(statistics.median(ours for ours, _ in pairs), 2),
        "bare_s": round(statistics.median(bare for _, bare in pairs), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


if __name__ == "__main__":
    main()
