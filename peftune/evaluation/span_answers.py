"""Scores of tokens become answers out of a context, and answers become measures.

T tokens of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from peftune.data.encoders.spans import Window
from peftune.evaluation.metrics import References, Results, answers

NO_ANSWER = ("",)
"""The references of a question that its context does not answer."""


class Candidate(NamedTuple):
    """What one window says about its question."""

    null: float
    """Score of there being no answer."""
    score: float
    """Of the best stretch of the context; -inf when the window has no text."""
    start: int
    """Character of the context, the first of the stretch."""
    end: int
    """Character behind the stretch."""


def best_in_window(scores_2T: np.ndarray, window: Window, context: str, longest: int) -> Candidate:
    """The stretch of at most `longest` context tokens whose first and last token score best.

    A start scores with an end as the sum of their logits, and no answer as the first token with
    itself (Devlin et al. 2019, arXiv:1810.04805, section 4.3). Tokens of blanks neither begin nor
    end an answer.
    """
    blank = [not context[start:end].strip() for start, end in window.spans]
    tokens = slice(window.first, window.first + len(window.spans))
    starts, ends = np.where(blank, -np.inf, scores_2T[:, tokens])
    null = float(scores_2T[:, 0].sum())
    best = Candidate(null, -np.inf, 0, 0)
    for further in range(min(longest, len(starts))):
        sums = starts[: len(starts) - further] + ends[further:]
        first = int(sums.argmax())
        if sums[first] > best.score:
            from_character, to_character = window.spans[first][0], window.spans[first + further][1]
            best = Candidate(null, float(sums[first]), from_character, to_character)
    return best


def answer(candidates: Sequence[Candidate], context: str, may_refuse: bool) -> str:
    """The best stretch of all windows of a question; no text when no answer scores better.

    Of the windows' scores for no answer the lowest counts: all but one window may rightly hold
    none.
    """
    best = max(candidates, key=lambda candidate: candidate.score)
    if may_refuse and min(candidate.null for candidate in candidates) > best.score:
        return ""
    return context[best.start : best.end].strip()


def has_unanswerable(references: References) -> bool:
    """Whether some question has no answer; otherwise a model need not be able to say so."""
    return NO_ANSWER in references


def span_results(predictions: Sequence[str], references: References, seed: int) -> Results:
    """Exact match and F1 of SQuAD, also apart for questions with and without an answer.

    Source: Rajpurkar et al. 2018, "Know What You Don't Know", arXiv:1806.03822.
    """
    results = answers(predictions, references, seed)
    pairs = [*zip(predictions, references, strict=True)]
    answered = [pair for pair in pairs if pair[1] != NO_ANSWER]
    refused = [pair for pair in pairs if pair[1] == NO_ANSWER]
    if answered and refused:
        parts = {"has_answer": answered, "no_answer": refused}
        for name, part in parts.items():
            texts, wanted = zip(*part, strict=True)
            for measure, result in answers(texts, wanted, seed).items():
                results[f"{name}_{measure}"] = result
    return results
