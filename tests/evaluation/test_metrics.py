"""Scores whose values are known by hand."""

import numpy as np
import pytest

from peftune.evaluation.metrics import bootstrap_interval, rouge, score

CAT = "the cat sat on the mat"


def test_a_perfect_prediction_scores_one_and_an_unrelated_one_zero() -> None:
    scores = rouge([CAT, "quite different words"], [(CAT,), (CAT,)])
    assert scores == {"rouge1": [1.0, 0.0], "rouge2": [1.0, 0.0], "rougeL": [1.0, 0.0]}


def test_scores_are_f_measures_of_words_pairs_and_the_longest_subsequence() -> None:
    """Two of three words, one of two pairs, and a common subsequence of two words."""
    scores = rouge(["red cat sat"], [("cat sat red down",)])
    assert scores["rouge1"] == [pytest.approx(2 * 3 / (3 + 4))]
    assert scores["rouge2"] == [pytest.approx(2 * 1 / (2 + 3))]
    assert scores["rougeL"] == [pytest.approx(2 * 2 / (3 + 4))]


def test_words_are_compared_by_their_stems() -> None:
    assert rouge(["dogs running"], [("dog runs",)])["rouge1"] == [1.0]


def test_an_empty_prediction_scores_zero() -> None:
    assert rouge([""], [(CAT,)]) == {"rouge1": [0.0], "rouge2": [0.0], "rougeL": [0.0]}


@pytest.mark.parametrize("references", [("a b", "z y x b a q q"), ("z y x b a q q", "a b")])
def test_the_best_reference_counts_for_each_measure_by_itself(references) -> None:
    """The long reference has all five words, the short one alone has a pair of neighbours."""
    scores = rouge(["a b x y z"], [references])
    assert scores["rouge1"] == [pytest.approx(2 * 5 / (5 + 7))]
    assert scores["rouge2"] == [pytest.approx(2 * 1 / (4 + 1))]


def test_every_prediction_needs_references() -> None:
    with pytest.raises(ValueError):
        rouge([CAT, CAT], [(CAT,)])


def test_equal_scores_have_an_interval_without_width() -> None:
    assert bootstrap_interval([0.25] * 9, seed=0) == (0.25, 0.25)


def test_one_example_has_an_interval_without_width() -> None:
    assert bootstrap_interval([0.7], seed=0) == (0.7, 0.7)


def test_the_interval_of_a_fair_coin_is_the_binomial_one() -> None:
    """Means of 400 coins deviate by 0.025, so 95 % of them lie within 0.049 of one half."""
    low, high = bootstrap_interval([0.0, 1.0] * 200, seed=1)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_intervals_of_resampled_data_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of 200 samples of 60 draws around 0.3, 95 % should cover it; 175 is five deviations below."""
    draws = np.random.default_rng(0).normal(0.3, 0.1, size=(200, 60))
    intervals = [bootstrap_interval(list(sample), seed=2) for sample in draws]
    covered = sum(low <= 0.3 <= high for low, high in intervals)
    assert 175 <= covered < 200


def test_the_interval_depends_on_the_seed_alone() -> None:
    values = list(np.linspace(0, 1, 30) ** 2)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_equal_seeds_resample_the_same_examples() -> None:
    """A constant gain moves the interval by just that gain, so two models can be compared."""
    values = np.linspace(0, 1, 30) ** 2
    low, high = bootstrap_interval(list(values), seed=5)
    assert bootstrap_interval(list(values + 0.5), seed=5) == (
        pytest.approx(low + 0.5),
        pytest.approx(high + 0.5),
    )


def test_a_score_is_the_mean_over_examples_inside_its_interval() -> None:
    predictions = [CAT, "nothing here", "the cat"] * 5
    scores = score(["rouge"], predictions, [(CAT,)] * 15, seed=0)
    assert list(scores) == ["rouge1", "rouge2", "rougeL"]
    assert scores["rouge1"]["value"] == pytest.approx((1 + 0 + 2 * 2 / (2 + 6)) / 3)
    assert all(set(numbers) == {"value", "low", "high"} for numbers in scores.values())
    assert all(n["low"] < n["value"] < n["high"] for n in scores.values())


def test_a_task_without_metrics_has_no_scores() -> None:
    assert score([], [CAT], [(CAT,)], seed=0) == {}


def test_short_answers_are_right_or_wrong_as_a_whole() -> None:
    """Only where every reference is short; longer ones cannot be expected word for word."""
    predictions = ["The Rhine.", "Elbe", CAT]
    references = [("rhine", "Rhein"), ("Oder",), (f"{CAT} again",)]
    found = score(["short_answers"], predictions, references, seed=0)
    assert found["exact_match_short"]["value"] == 0.5
    assert found["exact_match_short"]["examples"] == 2
    assert score(["short_answers"], [CAT], [(CAT,)], seed=0) == {}
