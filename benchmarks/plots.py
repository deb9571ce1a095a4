"""Pictures of what the benchmarks found."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def plot(report: dict[str, Any], file: Path) -> None:
    """Speed and memory of each contender, with every round as a point."""
    names = [*report["contenders"]]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.6 * len(names) + 1.4), sharey=True)
    shown = (("tokens_per_second", "real tokens per second"), ("peak_gb", "peak memory, GB"))
    for axis, (key, label) in zip(axes, shown, strict=True):
        found = [[one[key] for one in report["contenders"][name]] for name in names]
        axis.barh(names, [statistics.median(one) for one in found], color="#4878a8")
        for place, values in enumerate(found):
            axis.plot(values, [place] * len(values), "k.", markersize=4)
        axis.set_xlabel(label)
    axes[0].axvline(report["limit_tokens_per_second"], color="#a84848", linestyle="--", linewidth=1)
    axes[0].invert_yaxis()
    figure.suptitle(
        f"{report['kind']}, {report['quantization'] or report['dtype']}, {report['date']}"
    )
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
