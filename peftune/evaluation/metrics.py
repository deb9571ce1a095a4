"""Scores of generated text, with intervals; pure functions of texts and a seed."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from string import punctuation
from typing import Any

import numpy as np

Scores = dict[str, list[float]]
Results = dict[str, dict[str, Any]]
"""By measure: `value`, and the borders `low` and `high` of its 95 % interval."""
References = Sequence[tuple[str, ...]]
RESAMPLES = 1_000
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL"]
PUNCTUATION = frozenset(punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
WORKED = re.compile(r"####\s*-?[\d.,]+\s*$")
SHORT_ANSWER = 5
"""Words of an answer that can be right or wrong as a whole."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


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


def bootstrap_interval(scores: Sequence[float], seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over 1,000 resamples of the examples."""
    values = np.asarray(scores)
    return resampled_interval(lambda picks: values[picks].mean(), len(values), seed)


def resampled_interval(
    statistic: Callable[[np.ndarray], float], examples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of the examples at some positions.

    Equal seeds draw equal resamples, so intervals of two models on the same examples compare.
    Resamples without a value (a label that was never drawn) are left out.
    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    picks = generator.integers(examples, size=(RESAMPLES, examples))
    low, high = np.nanpercentile([statistic(row) for row in picks], [2.5, 97.5])
    return float(low), float(high)


def with_means(scores: Scores, seed: int) -> Results:
    """Mean and interval of every measure that has a value for each example."""
    results: Results = {}
    for name, values in scores.items():
        low, high = bootstrap_interval(values, seed)
        results[name] = {"value": float(np.mean(values)), "low": low, "high": high}
    return results


def score_rouge(predictions: Sequence[str], references: References, seed: int) -> Results:
    """ROUGE with intervals."""
    return with_means(rouge(predictions, references), seed)


def translation(predictions: Sequence[str], references: References, seed: int) -> Results:
    """BLEU and chrF++ of the whole set (0 to 100), with sacreBLEU's signature of how.

    The interval is sacreBLEU's own bootstrap; it draws the same resamples for every model.
    Sources: Post 2018, arXiv:1804.08771; Popović 2017, "chrF++: words helping character n-grams".
    """
    from sacrebleu.metrics import BLEU, CHRF

    most = max(map(len, references))
    streams: Any = [
        [texts[index] if index < len(texts) else None for texts in references]
        for index in range(most)
    ]
    results: Results = {}
    for name, metric in (("bleu", BLEU()), ("chrf++", CHRF(word_order=2))):
        found = metric.corpus_score(list(predictions), streams, n_bootstrap=RESAMPLES)
        low, high = found._mean - found._ci, found._mean + found._ci
        results[name] = {
            "value": float(found.score),
            "low": float(low),
            "high": float(high),
            "signature": str(metric.get_signature()),
        }
    return results


def answers(predictions: Sequence[str], references: References, seed: int) -> Results:
    """Exact match and F1 of words after SQuAD's normalisation, the best reference each time.

    Worked answers that end in `#### number` (GSM8K) are also compared by their last number.
    Source: the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250).
    """
    paired = list(zip(predictions, references, strict=True))
    scores: Scores = {
        "exact_match": exact_matches(predictions, references),
        "f1": [max(word_f1(text, other) for other in texts) for text, texts in paired],
    }
    if all(WORKED.search(texts[0]) for texts in references):
        scores["number_match"] = [
            float(last_number(text) == last_number(texts[0])) for text, texts in paired
        ]
    return with_means(scores, seed)


def short_answers(predictions: Sequence[str], references: References, seed: int) -> Results:
    """Exact match after SQuAD's normalisation where every reference is short; nothing without such.

    The number of these examples stands beside the value.
    """
    short = [
        index
        for index, texts in enumerate(references)
        if all(len(text.split()) <= SHORT_ANSWER for text in texts)
    ]
    if not short:
        return {}
    picked = [predictions[index] for index in short], [references[index] for index in short]
    [result] = with_means({"exact_match": exact_matches(*picked)}, seed).values()
    return {"exact_match_short": {**result, "examples": len(short)}}


def exact_matches(predictions: Sequence[str], references: References) -> list[float]:
    """1 for each prediction that is one of its references but for case, punctuation and articles."""
    return [
        float(any(plain(text) == plain(other) for other in texts))
        for text, texts in zip(predictions, references, strict=True)
    ]


def plain(text: str) -> str:
    """Lower case, without punctuation, articles and white space beyond one blank."""
    kept = "".join(character for character in text.lower() if character not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", kept).split())


def word_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of the shares of words in common; 1 for two answers without words."""
    ours, theirs = plain(prediction).split(), plain(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def last_number(text: str) -> float | None:
    """The last number of a text, thousands separators ignored; None when there is none."""
    found = NUMBER.findall(text.replace(",", ""))
    return float(found[-1]) if found else None


METRICS: dict[str, Callable[[Sequence[str], References, int], Results]] = {
    "rouge": score_rouge,
    "translation": translation,
    "answers": answers,
    "short_answers": short_answers,
}


def score(
    names: Sequence[str], predictions: Sequence[str], references: References, seed: int
) -> Results:
    """Value and interval of every measure of the named metrics."""
    results: Results = {}
    for name in names:
        results |= METRICS[name](predictions, references, seed)
    return results
