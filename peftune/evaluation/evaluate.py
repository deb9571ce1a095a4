"""Base and adapted model side by side: the numbers, the predictions, and how they are shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from peftune.data.examples import Example
from peftune.evaluation.metrics import score
from peftune.evaluation.tag_metrics import tagged_text

Outputs = tuple[str | list[str], ...]
"""What a model says to each example: a text, or the tag of each word."""
SHOWN_LINES = 10
SHOWN_CHARACTERS = 800


@dataclass(frozen=True)
class Measurement:
    """One model on the test split: what it answered, if the task asks, and its loss in nats."""

    outputs: Outputs | None
    loss: float
    target_tokens: int
    label_results: Mapping[str, Any] = field(default_factory=dict)
    """Measures of a head that scores labels or positions; empty for a model that generates."""


def results(
    metrics: Sequence[str],
    base: Measurement,
    adapted: Measurement,
    references: Sequence[tuple[str, ...]],
    examples: int,
    seed: int,
    text_bytes: int | None,
) -> dict[str, Any]:
    """The content of eval_results.json. `text_bytes` adds bits per byte of plain text."""

    def numbers(measurement: Measurement) -> dict[str, Any]:
        if measurement.label_results:
            return {**measurement.label_results, "loss": measurement.loss}
        # Only the outputs of a tagger are no texts, and these have been scored.
        texts = None if measurement.outputs is None else [str(one) for one in measurement.outputs]
        scores = {} if texts is None else score(metrics, texts, references, seed)
        return {**scores, **loss_numbers(measurement, text_bytes)}

    return {
        "examples": examples,
        "target_tokens": adapted.target_tokens,
        "base": numbers(base),
        "adapted": numbers(adapted),
    }


def loss_numbers(measurement: Measurement, text_bytes: int | None) -> dict[str, float]:
    """Loss, perplexity, and bits per byte where every byte of the text was predicted.

    Above 700 nats the perplexity stays at exp(700), because floats end soon after it.
    """
    numbers = {"loss": measurement.loss, "perplexity": math.exp(min(measurement.loss, 700.0))}
    if text_bytes is not None:
        bits = measurement.loss * measurement.target_tokens / math.log(2)
        numbers["bits_per_byte"] = bits / text_bytes
    return numbers


def prediction_rows(
    examples: Sequence[Example], base: Measurement, adapted: Measurement
) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl; none for a task that generates nothing."""
    if base.outputs is None or adapted.outputs is None:
        return []
    return [
        {"row": example.row, **_asked(example), "base": base_output, "adapted": adapted_output}
        for example, base_output, adapted_output in zip(
            examples, base.outputs, adapted.outputs, strict=True
        )
    ]


def _asked(example: Example) -> dict[str, Any]:
    if example.words:
        return {"words": list(example.words), "tags": example.label}
    return {"input": example.source, "references": list(example.references)}


def comparison(
    scores: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    shown: int,
    models: tuple[str, str] = ("base", "adapted"),
) -> list[Any]:
    """A table of two models and the first `shown` predictions, for the screen."""
    table = Table("", *models, title=f"test split, {scores['examples']} rows")
    before, after = (scores[model] for model in models)
    for name, value in after.items():
        if isinstance(value, list):
            continue
        table.add_row(*map(Text, (name, _shown(before.get(name)), _shown(value))))
    return [table, *(_sample(row) for row in predictions[:shown])]


def _shown(value: Any) -> str:
    """A measure; a model may have none, as a correlation where every answer is the same."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value:.4f}"


def _sample(row: Mapping[str, Any]) -> Group:
    shown = _tagged(row) if "words" in row else row
    parts = [Text(f"row {row['row'] + 1}", "bold"), Text(shortened(shown["input"]), "dim")]
    for title, content in (
        ("reference", shown["references"][0]),
        ("base", shown["base"]),
        ("adapted", shown["adapted"]),
    ):
        parts.append(Text.assemble((f"{title + ':':11}", "bold"), content.replace("\n", " ⏎ ")))
    return Group(*parts, Text())


def _tagged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of tags as texts."""
    words = row["words"]
    return {
        "input": " ".join(words),
        "references": [tagged_text(words, row["tags"])],
        "base": tagged_text(words, row["base"]),
        "adapted": tagged_text(words, row["adapted"]),
    }


def shortened(text: str) -> str:
    """The beginning of `text`, about ten lines of a screen; an ellipsis says that more follows."""
    kept = "\n".join(text.splitlines()[:SHOWN_LINES])[:SHOWN_CHARACTERS]
    return kept if len(kept) >= len(text.rstrip()) else f"{kept} …"
