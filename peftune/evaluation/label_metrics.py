"""Scores of labels and values, with intervals; pure functions of arrays and a seed.

N examples, L labels.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from peftune.evaluation.metrics import Results, resampled_interval
from peftune.objectives import ObjectiveName

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def predicted(scores_NL: np.ndarray, objective: ObjectiveName) -> np.ndarray:
    """Class ids (N,), flags (N, L) of the labels that are rather there than not, or values (N,)."""
    match objective:
        case "label":
            return scores_NL.argmax(axis=1)
        case "labels":
            return (scores_NL > 0).astype(int)
    return scores_NL[:, 0]


def label_results(
    scores_NL: np.ndarray, labels: np.ndarray, objective: ObjectiveName, seed: int
) -> Results:
    """Every measure of the objective by scikit-learn and SciPy, each with a bootstrap interval.

    `labels` is (N,) class ids or values, or (N, L) flags. A measure without a value (a label that
    no example has, values that are all alike) is left out.
    """
    found = predicted(scores_NL, objective)
    fast = _resampled(found, labels, scores_NL, objective)
    results: Results = {}
    for name, statistic in _statistics(objective).items():
        value = _quiet(statistic, found, labels, scores_NL)
        if np.isfinite(value):
            low, high = resampled_interval(partial(_quiet, fast[name]), len(labels), seed)
            results[name] = {"value": value, "low": low, "high": high}
    return results


def _quiet(statistic: Callable[..., float], *arrays: np.ndarray) -> float:
    """A resample may miss a label, or have one value only: that is no number, and no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(statistic(*arrays))


def _statistics(objective: ObjectiveName) -> dict[str, Statistic]:
    """Each measure as a function of predictions, labels and scores."""
    from scipy import stats
    from sklearn import metrics

    def f1(average: str) -> Statistic:
        return lambda found, labels, _: metrics.f1_score(
            labels, found, average=average, zero_division=0.0
        )

    def accuracy(found: np.ndarray, labels: np.ndarray, _: np.ndarray) -> float:
        return metrics.accuracy_score(labels, found)

    match objective:
        case "label":
            return {
                "accuracy": accuracy,
                "f1_macro": f1("macro"),
                "f1_micro": f1("micro"),
                "matthews": lambda found, labels, _: metrics.matthews_corrcoef(labels, found),
            }
        case "labels":
            return {
                "accuracy": accuracy,
                "f1_macro": f1("macro"),
                "f1_micro": f1("micro"),
                "auroc_macro": lambda _, labels, scores: metrics.roc_auc_score(
                    labels, scores, average="macro"
                ),
            }
    return {
        "pearson": lambda found, labels, _: stats.pearsonr(labels, found).statistic,
        "spearman": lambda found, labels, _: stats.spearmanr(labels, found).statistic,
    }


def _resampled(
    found: np.ndarray, labels: np.ndarray, scores_NL: np.ndarray, objective: ObjectiveName
) -> dict[str, Callable[[np.ndarray], float]]:
    """The same measures as functions of picked examples, without what makes a thousand calls slow.

    Of one label everything follows from the confusion matrix.
    """
    match objective:
        case "label":
            kinds = scores_NL.shape[1]
            cells = labels * kinds + found

            def matrix(picks: np.ndarray) -> np.ndarray:
                return np.bincount(cells[picks], minlength=kinds**2).reshape(kinds, kinds)

            def accuracy(picks: np.ndarray) -> float:
                return float((found[picks] == labels[picks]).mean())

            return {
                "accuracy": accuracy,
                "f1_macro": lambda picks: macro_f1(matrix(picks)),
                # With one label each, every false positive is also a false negative.
                "f1_micro": accuracy,
                "matthews": lambda picks: matthews(matrix(picks)),
            }
        case "labels":
            right = (found == labels).all(axis=1)
            hits, sizes = found * labels, found + labels
            return {
                "accuracy": lambda picks: right[picks].mean(),
                "f1_macro": lambda picks: _f1(hits[picks].sum(0), sizes[picks].sum(0)).mean(),
                "f1_micro": lambda picks: float(_f1(hits[picks].sum(), sizes[picks].sum())),
                "auroc_macro": lambda picks: macro_auroc(labels[picks], scores_NL[picks]),
            }
    return {
        name: lambda picks, at=statistic: at(found[picks], labels[picks], scores_NL[picks])  # type: ignore[misc]
        for name, statistic in _statistics(objective).items()
    }


def _f1(hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of true positives, and of positives in the labels plus those found; 0 where there are none."""
    return 2 * hits / np.maximum(sizes, 1)


def macro_f1(confusion_LL: np.ndarray) -> float:
    """Mean F1 over the labels that are there or were found, as scikit-learn counts them."""
    sizes = confusion_LL.sum(axis=0) + confusion_LL.sum(axis=1)
    return float(_f1(confusion_LL.diagonal(), sizes)[sizes > 0].mean())


def matthews(confusion_LL: np.ndarray) -> float:
    """Correlation of labels and predictions; 0 when one of them is always the same.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation
    coefficient", equation 8.
    """
    found, there = confusion_LL.sum(axis=0, dtype=float), confusion_LL.sum(axis=1, dtype=float)
    total = confusion_LL.sum()
    spread = (total**2 - (found**2).sum()) * (total**2 - (there**2).sum())
    covariance = confusion_LL.trace() * total - found @ there
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def macro_auroc(labels_NL: np.ndarray, scores_NL: np.ndarray) -> float:
    """Mean over labels of how often an example with the label has the higher score, ties by half.

    Not a number when a label is always there or never. Source: Hanley and McNeil 1982, the area as a
    Wilcoxon statistic.
    """
    from scipy.stats import rankdata

    there = labels_NL.sum(axis=0)
    ranks = (rankdata(scores_NL, axis=0) * labels_NL).sum(axis=0)
    pairs = there * (len(labels_NL) - there)
    return float(((ranks - there * (there + 1) / 2) / pairs).mean())


def confusion(found: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> list[list[int]]:
    """How often each label (row) was given as each label (column)."""
    from sklearn.metrics import confusion_matrix

    counts: Any = confusion_matrix(labels, found, labels=list(range(len(names))))
    return counts.tolist()


def shown_label(found: Any, objective: ObjectiveName, names: tuple[str, ...]) -> str:
    """One prediction for people."""
    match objective:
        case "label":
            return names[int(found)]
        case "labels":
            return ", ".join(name for name, there in zip(names, found, strict=True) if there)
    return f"{found:.4g}"
