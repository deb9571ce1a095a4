"""The content of eval_results.json and predictions.jsonl, and what the screen shows."""

import io
import json
import math

import pytest
from rich.console import Console

from peftune.data.examples import Example
from peftune.evaluation.evaluate import (
    Measurement,
    comparison,
    prediction_rows,
    results,
    shortened,
)

EXAMPLES = [
    Example(4, "Tom: hi\nSummary:", "Tom greets.", ("Tom greets.", "Tom says hi."), "Tom: hi", ()),
    Example(7, "Ada: [b]no\nSummary:", "Ada refuses.", ("Ada refuses.",), "Ada: [b]no", ()),
]
REFERENCES = [example.references for example in EXAMPLES]
BASE = Measurement(("Tom: Tom: Tom:", "[/b] what\nelse"), loss=2.0, target_tokens=10)
ADAPTED = Measurement(("Tom says hi.", "Ada refuses."), loss=0.5, target_tokens=10)


def measured() -> dict:
    return results(["rouge"], BASE, ADAPTED, REFERENCES, len(EXAMPLES), 0, None)


def printed(scores: dict, rows: list[dict], shown: int) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=100, color_system=None)
    for part in comparison(scores, rows, shown):
        console.print(part)
    return screen.getvalue()


def test_results_hold_both_models_on_the_same_examples() -> None:
    scores = measured()
    assert scores["examples"] == 2
    assert scores["target_tokens"] == 10
    assert scores["base"]["loss"] == 2.0
    assert scores["adapted"]["perplexity"] == pytest.approx(math.exp(0.5))
    assert scores["adapted"]["rougeL"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert scores["base"]["rougeL"]["value"] < 0.5
    assert scores["base"].keys() == scores["adapted"].keys()
    assert "bits_per_byte" not in scores["base"]
    assert json.loads(json.dumps(scores)) == scores


def test_plain_text_has_bits_per_byte_and_no_generated_scores() -> None:
    """10 tokens of 2 ln 2 nats are 20 bits; they stand for 16 bytes."""
    text = Measurement(None, loss=2 * math.log(2), target_tokens=10)
    scores = results([], text, text, [], 1, 0, text_bytes=16)
    assert scores["base"] == {
        "loss": pytest.approx(2 * math.log(2)),
        "perplexity": pytest.approx(4.0),
        "bits_per_byte": pytest.approx(1.25),
    }


def test_a_diverged_loss_still_makes_a_valid_file() -> None:
    huge = Measurement(None, loss=5_000.0, target_tokens=1)
    scores = results([], huge, huge, [], 1, 0, None)
    assert json.dumps(scores, allow_nan=False)
    assert scores["base"]["perplexity"] > 1e300


def test_predictions_keep_rows_inputs_and_both_outputs_together() -> None:
    assert prediction_rows(EXAMPLES, BASE, ADAPTED) == [
        {
            "row": 4,
            "input": "Tom: hi",
            "references": ["Tom greets.", "Tom says hi."],
            "base": "Tom: Tom: Tom:",
            "adapted": "Tom says hi.",
        },
        {
            "row": 7,
            "input": "Ada: [b]no",
            "references": ["Ada refuses."],
            "base": "[/b] what\nelse",
            "adapted": "Ada refuses.",
        },
    ]


def test_a_missing_output_is_an_error_not_a_shift() -> None:
    short = Measurement(("Tom says hi.",), loss=0.5, target_tokens=10)
    with pytest.raises(ValueError):
        prediction_rows(EXAMPLES, BASE, short)


def test_a_task_that_generates_nothing_has_no_predictions() -> None:
    text = Measurement(None, loss=1.0, target_tokens=3)
    assert prediction_rows(EXAMPLES, text, text) == []


def test_the_comparison_shows_intervals_and_as_many_samples_as_asked() -> None:
    scores, rows = measured(), prediction_rows(EXAMPLES, BASE, ADAPTED)
    text = printed(scores, rows, shown=1)
    assert "1.0000 [1.0000, 1.0000]" in text
    assert "2.0000" in text
    assert "Tom says hi." in text
    assert "Tom: Tom: Tom:" in text
    assert "Ada" not in text
    assert "Tom says hi." not in printed(scores, rows, shown=0)
    assert "Ada" in printed(scores, rows, shown=9)


def test_samples_are_shown_as_they_are() -> None:
    """Brackets in the data are no markup of the terminal."""
    text = printed(measured(), prediction_rows(EXAMPLES, BASE, ADAPTED), shown=2)
    assert "Ada: [b]no" in text
    assert "[/b] what ⏎ else" in text


def test_long_inputs_are_cut_to_about_ten_lines() -> None:
    lines = [f"line {number}" for number in range(30)]
    assert shortened("\n".join(lines)) == "\n".join(lines[:10]) + " …"
    assert len(shortened("word " * 1_000)) < 1_000
    assert shortened("\n".join(lines[:10]) + "\n") == "\n".join(lines[:10])
    assert shortened("short") == "short"


def test_a_measure_that_the_base_does_not_have() -> None:
    """A head that gives every row the same value has no correlation with anything."""
    measures = {"pearson": {"value": 0.9, "low": 0.8, "high": 1.0}}
    base = Measurement(("1", "1"), 2.0, 10, {"pairs": 1.0})
    adapted = Measurement(("1", "2"), 1.0, 10, measures)
    scores = results([], base, adapted, REFERENCES, 2, 0, None)
    (line,) = (line for line in printed(scores, [], 0).splitlines() if "pearson" in line)
    assert "none" in line and "0.9000 [0.8000, 1.0000]" in line
