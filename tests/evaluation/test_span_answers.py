"""Scores of tokens become the best answer, or none."""

import itertools

import numpy as np
import pytest

from peftune.data.encoders.spans import Window
from peftune.evaluation.span_answers import (
    Candidate,
    answer,
    best_in_window,
    has_unanswerable,
    span_results,
)

CONTEXT = "Ada buys  milk."
SPANS = ((0, 3), (4, 8), (8, 9), (10, 14), (14, 15))
WINDOW = Window((9, 8, 1, 2, 3, 4, 5, 9), (), 2, 0, SPANS)


def scored(seed: int) -> np.ndarray:
    """Two rows of scores, for a window of 8 tokens and a padding of 2."""
    scores = np.random.default_rng(seed).normal(size=(2, 10)).astype(np.float32)
    scores[:, 8:] = -np.inf
    return scores


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_stretch_scores_better(seed: int, longest: int) -> None:
    """Of context tokens in their order, neither ending in the blank nor longer than allowed."""
    scores = scored(seed)
    best = best_in_window(scores, WINDOW, CONTEXT, longest)
    allowed = [0, 1, 3, 4]
    every = [
        (scores[0, 2 + first] + scores[1, 2 + last], SPANS[first][0], SPANS[last][1])
        for first, last in itertools.product(allowed, allowed)
        if first <= last < first + longest
    ]
    assert (best.score, best.start, best.end) == pytest.approx(max(every))
    assert best.null == pytest.approx(scores[0, 0] + scores[1, 0])


def test_the_question_is_never_an_answer() -> None:
    scores = np.zeros((2, 8), dtype=np.float32)
    scores[:, 1] = 99.0
    best = best_in_window(scores, WINDOW, CONTEXT, 30)
    assert CONTEXT[best.start : best.end] in ("Ada", "buys", "milk", ".")


def test_the_best_window_answers() -> None:
    windows = [Candidate(5.0, 2.0, 0, 3), Candidate(1.0, 4.0, 9, 14)]
    assert answer(windows, CONTEXT, may_refuse=False) == "milk"
    assert answer(windows, CONTEXT, may_refuse=True) == "milk"


def test_no_window_answers_where_each_of_them_rather_says_so() -> None:
    windows = [Candidate(5.0, 2.0, 0, 3), Candidate(4.5, 4.0, 9, 14)]
    assert answer(windows, CONTEXT, may_refuse=True) == ""
    assert answer(windows, CONTEXT, may_refuse=False) == "milk"


def test_answered_and_unanswerable_questions_are_scored_apart() -> None:
    references = [("milk", "the milk"), ("",), ("",), ("Ada",)]
    assert has_unanswerable(references)
    results = span_results(["Milk!", "", "Ada", "Ada Byron"], references, 0)
    values = {name: result["value"] for name, result in results.items()}
    assert values == pytest.approx(
        {
            "exact_match": 0.5,
            "f1": (1 + 1 + 0 + 2 / 3) / 4,
            "has_answer_exact_match": 0.5,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_exact_match": 0.5,
            "no_answer_f1": 0.5,
        }
    )
    assert all(result["low"] <= result["high"] for result in results.values())


def test_data_with_answers_alone_has_two_measures() -> None:
    assert not has_unanswerable([("milk",)])
    assert span_results(["milk"], [("milk",)], 0).keys() == {"exact_match", "f1"}
