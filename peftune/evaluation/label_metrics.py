"""Scores of labels and values, with intervals; pure functions of arrays and a seed.

N examples, L labels.
"""

import warnings
from collections.abc import Callable
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
    results: Results = {}
    for name, statistic in _statistics(objective).items():

        def at(picks: np.ndarray, statistic: Statistic = statistic) -> float:
            return _quiet(statistic, found[picks], labels[picks], scores_NL[picks])

        value = at(np.arange(len(labels)))
        if np.isfinite(value):
            low, high = resampled_interval(at, len(labels), seed)
            results[name] = {"value": value, "low": low, "high": high}
    return results


def _quiet(statistic: Statistic, *arrays: np.ndarray) -> float:
    """A resample may miss a label, or have one value only: that is no number, and no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(statistic(*arrays))


def _statistics(objective: ObjectiveName) -> dict[str, Statistic]:
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
