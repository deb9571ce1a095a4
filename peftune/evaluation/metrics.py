"""Scores of generated text, with intervals; pure functions of texts and a seed."""

from collections.abc import Callable, Sequence

import numpy as np

Scores = dict[str, list[float]]
References = Sequence[tuple[str, ...]]
RESAMPLES = 1_000
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL"]


def rouge(predictions: Sequence[str], references: References) -> Scores:
    """ROUGE-1, -2 and -L F-measure of each prediction, with Porter stemming.

    With several references the best one counts, separately for each measure. Words are runs of the
    characters a-z and 0-9, as in the package rouge-score: text in another script scores 0.
    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    best = [
        scorer.score_multi(list(texts), prediction)
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {kind: [score[kind].fmeasure for score in best] for kind in ROUGE_TYPES}


METRICS: dict[str, Callable[[Sequence[str], References], Scores]] = {"rouge": rouge}


def bootstrap_interval(scores: Sequence[float], seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over 1,000 resamples of the examples.

    Equal seeds draw equal resamples, so intervals of two models on the same examples compare.
    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    values = np.asarray(scores)
    generator = np.random.Generator(np.random.Philox(key=seed))
    picks = generator.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def score(
    names: Sequence[str], predictions: Sequence[str], references: References, seed: int
) -> dict[str, dict[str, float]]:
    """Mean and interval of every measure of the named metrics."""
    results = {}
    for name in names:
        for measure, values in METRICS[name](predictions, references).items():
            low, high = bootstrap_interval(values, seed)
            results[measure] = {"value": float(np.mean(values)), "low": low, "high": high}
    return results
