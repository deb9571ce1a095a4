"""What intervals are resampled with equals scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from peftune.evaluation.label_metrics import label_results, macro_auroc, macro_f1, matthews
from peftune.evaluation.metrics import RESAMPLES, resampled_interval

DRAWS = np.random.default_rng(5)


@pytest.mark.parametrize("kinds", [2, 5])
def test_measures_of_a_confusion_matrix(kinds: int) -> None:
    for _ in range(20):
        labels, found = DRAWS.integers(kinds, size=(2, 12))
        matrix = metrics.confusion_matrix(labels, found, labels=range(kinds))
        theirs = metrics.f1_score(labels, found, average="macro", zero_division=0.0)
        assert macro_f1(matrix) == pytest.approx(theirs)
        assert matthews(matrix) == pytest.approx(metrics.matthews_corrcoef(labels, found))
    assert matthews(np.diag([3, 0])) == 0.0


def test_area_under_the_curve() -> None:
    for _ in range(20):
        labels = np.concatenate([DRAWS.integers(2, size=(9, 3)), [[0, 0, 0], [1, 1, 1]]])
        scores = DRAWS.integers(4, size=labels.shape) / 4
        theirs = metrics.roc_auc_score(labels, scores, average="macro")
        assert macro_auroc(labels, scores) == pytest.approx(theirs)


@pytest.mark.parametrize("objective", ["label", "labels"])
def test_intervals_are_those_of_scikit_learn(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RESAMPLES == 1000
    monkeypatch.setattr("peftune.evaluation.metrics.RESAMPLES", 40)
    scores = DRAWS.normal(size=(30, 4))
    labels = scores.argmax(axis=1) if objective == "label" else (scores > 0.3).astype(int)
    scores = scores + DRAWS.normal(size=scores.shape)
    found = scores.argmax(axis=1) if objective == "label" else (scores > 0).astype(int)
    results = label_results(scores, labels, objective, seed=3)  # type: ignore[arg-type]
    for name, average in (("f1_macro", "macro"), ("f1_micro", "micro")):

        def theirs(picks: np.ndarray, average: str = average) -> float:
            return float(
                metrics.f1_score(labels[picks], found[picks], average=average, zero_division=0.0)
            )

        low, high = resampled_interval(theirs, len(labels), seed=3)
        assert (results[name]["low"], results[name]["high"]) == pytest.approx((low, high))
        assert results[name]["value"] == pytest.approx(theirs(np.arange(30)))
