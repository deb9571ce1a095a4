"""Which base a quantized run is best merged into, by how far the merged model is from what was trained.

python benchmarks/merge_bases.py [--minilm FOLDER --sst2 FOLDER] [--steps 60] [--out FILE.json]

Trains the package's own models, and all-MiniLM-L6-v2 on SST-2 where their folders are given, on weights
of 4 and 8 bits, and merges each adapter into the checkpoint's own weights and into what the bits stand
for. Prints the difference of the scores, as a share of their spread, beside the adapter's own effect.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY)]

from peftune.engines.launch import read_launch  # noqa: E402
from peftune.merging import REPORT, merge_proven  # noqa: E402
from peftune.pipeline import run  # noqa: E402
from peftune.recipe import load_recipe  # noqa: E402
from peftune.sources import source_of_run  # noqa: E402

RECIPES = {"decoder": "summarize", "encoder": "classify", "encoder-decoder": "translate"}
METHODS = ("bnb-nf4", "bnb-int8")
Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minilm", help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--sst2", help="folder of SST-2 with train, validation and test files")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    works = {name: (recipe, []) for name, recipe in RECIPES.items()}
    if arguments.minilm:
        places = [f"model.model_name_or_path={arguments.minilm}", f"data.path={arguments.sst2}"]
        works["MiniLM"] = ("classify", places)
    found = [
        row
        for name, (recipe, places) in works.items()
        for method in METHODS
        for row in both_bases(name, recipe, [*places, f"train.max_steps={arguments.steps}"], method)
    ]
    if arguments.out:
        report = {"date": time.strftime("%Y-%m-%d"), "steps": arguments.steps, "rows": found}
        Path(arguments.out).write_text(json.dumps(report, indent=2) + "\n")


def both_bases(name: str, recipe: str, overrides: list[str], method: str) -> list[Result]:
    """One training, merged twice."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        chosen = [f"quantization.method={method}", "export.merge=false", f"output_dir={folder}"]
        more = ["train.num_train_epochs=null", "data.max_test_samples=16", *overrides, *chosen]
        trained = load_recipe(REPOSITORY / "recipes" / f"{recipe}.yaml", more)
        run(trained, read_launch({}))
        source = source_of_run(trained, folder)
        return [
            merged(name, method, folder, replace(source, dequantized=way)) for way in (True, False)
        ]


def merged(name: str, method: str, folder: Path, source: Any) -> Result:
    out = folder.parent / ("dequantized" if source.dequantized else "original")
    merge_proven(source, folder, out)
    parity = json.loads((out / REPORT).read_text())["parity"]
    kept = ("difference", "adapter_effect", "kl", "top1_agreement")
    row = {"model": name, "bits": method, "base": out.name, **{one: parity[one] for one in kept}}
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
