"""The test split through base and adapted model, and what is written and shown about it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from peftune.context import Run
from peftune.data.encoders.spans import context_windows
from peftune.data.examples import Example
from peftune.data.rows import IGNORED
from peftune.engines.engine import Engine
from peftune.evaluation.evaluate import (
    Measurement,
    Outputs,
    comparison,
    prediction_rows,
    results,
)
from peftune.evaluation.generate import generate_on_ranks, require_room
from peftune.evaluation.label_metrics import confusion, label_results, predicted, shown_label
from peftune.evaluation.span_answers import (
    Candidate,
    answer,
    best_in_window,
    has_unanswerable,
    span_results,
)
from peftune.evaluation.tag_metrics import tag_results
from peftune.records import read_json, write_json, write_jsonl
from peftune.tasks import TASKS
from peftune.training.reporting import Reporter
from peftune.training.validation import held_out_loss, held_out_readings

EVAL_RESULTS = "eval_results.json"


def measure(context: Run, engine: Engine) -> Measurement | None:
    """Loss and answers of the engine's model on the test split, if there is one."""
    rows, batching = context.prepared.rows["test"], context.prepared.batching
    if not rows:
        return None
    batch = context.recipe.train.per_device_eval_batch_size
    held_out = held_out_loss(engine, rows, batching, batch)
    outputs, scores = _answers(context, engine)
    return Measurement(outputs, held_out.loss, held_out.target_tokens, scores)


def _answers(context: Run, engine: Engine) -> tuple[Outputs | None, dict[str, Any]]:
    """What the model says to each test row, and the scores of what no text was generated for."""
    match context.prepared.objective.name:
        case "label" | "labels" | "value":
            return label_test(context, engine)
        case "tags":
            return tag_test(context, engine)
        case "span":
            return span_test(context, engine)
    return (generate_test(context, engine) if TASKS[context.recipe.task].metrics else None), {}


def readings(
    context: Run, engine: Engine, read: Callable[[int, torch.Tensor], Any]
) -> list[tuple[int, Any]]:
    """(row in the source, what `read` makes of its scores) of each encoded test row."""
    rows = context.prepared.rows["test"]
    batch = context.recipe.train.per_device_eval_batch_size
    found = held_out_readings(engine, rows, context.prepared.batching, batch, read)
    return [(row.row, one) for row, one in zip(rows, found, strict=True)]


def label_test(context: Run, engine: Engine) -> tuple[Outputs, dict[str, Any]]:
    """The label that each test row is given, and how good these labels are."""
    prepared = context.prepared
    rows, objective, names = prepared.rows["test"], prepared.objective.name, prepared.head.labels
    found_scores = readings(context, engine, lambda index, logits: logits.numpy())
    scores = np.array([one for _, one in found_scores])
    labels = np.array([row.labels for row in rows])
    if objective != "labels":
        labels = labels[:, 0]
    measures: dict[str, Any] = label_results(scores, labels, objective, context.recipe.seed)
    found = predicted(scores, objective)
    if objective == "label":
        measures["confusion_matrix"] = confusion(found, labels, names)
    return tuple(shown_label(one, objective, names) for one in found), measures


def tag_test(context: Run, engine: Engine) -> tuple[Outputs, dict[str, Any]]:
    """The tag that each word of each test row is given, and how good these tags are."""
    rows, names = context.prepared.rows["test"], context.prepared.head.labels

    def tags_of_words(index: int, logits: torch.Tensor) -> list[str]:
        firsts = [at for at, label in enumerate(rows[index].labels) if label != IGNORED]
        return [names[tag] for tag in logits[firsts].argmax(dim=-1).tolist()]

    found: dict[int, list[str]] = {}
    for row, tags in readings(context, engine, tags_of_words):
        found[row] = [*found.get(row, ()), *tags]
    wanted = [example.label for example in tested(context)]
    return tuple(found.values()), tag_results([*found.values()], wanted, context.recipe.seed)


def span_test(context: Run, engine: Engine) -> tuple[Outputs, dict[str, Any]]:
    """The answer out of its context to each question of the test rows, and how good they are."""
    prepared, section = context.prepared, context.recipe.data
    examples, longest = tested(context), context.recipe.evaluation.max_answer_tokens
    cut = context_windows(examples, prepared.tokenizer, section)
    windows = [
        (window, example.pair)
        for example, parts in zip(examples, cut, strict=True)
        for window in parts
    ]

    def best(index: int, logits: torch.Tensor) -> Candidate:
        return best_in_window(logits.numpy(), *windows[index], longest)

    found: dict[int, list[Candidate]] = {}
    for row, candidate in readings(context, engine, best):
        found.setdefault(row, []).append(candidate)
    references = [example.references for example in examples]
    may_refuse = has_unanswerable(references)
    texts = tuple(
        answer(candidates, example.pair, may_refuse)
        for example, candidates in zip(examples, found.values(), strict=True)
    )
    return texts, span_results(texts, references, context.recipe.seed)


def tested(context: Run) -> list[Example]:
    """The test examples that have encoded rows, each once, in the order of these."""
    by_row = {example.row: example for example in context.prepared.test_examples}
    return [by_row[row] for row in dict.fromkeys(r.row for r in context.prepared.rows["test"])]


def generate_test(context: Run, engine: Engine) -> tuple[str, ...]:
    return written(context, engine, [row.prompt_ids for row in context.prepared.rows["test"]])


def require_room_for_answers(context: Run, engine: Engine) -> None:
    """Raise ModelError, before anything is trained, where an answer could not fit the model."""
    rows = context.prepared.rows["test"]
    if rows and context.prepared.objective.writes and TASKS[context.recipe.task].metrics:
        prompts = [row.prompt_ids for row in rows]
        require_room(engine.module, prompts, context.recipe.evaluation)


def written(context: Run, engine: Engine, prompts: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """What the model goes on with after each prompt, on every rank."""
    recipe, prepared = context.recipe, context.prepared
    with torch.no_grad(), engine.autocast():
        outputs = generate_on_ranks(
            engine.module,
            prompts,
            prepared.tokenizer,
            recipe.evaluation,
            prepared.end_ids,
            recipe.train.per_device_eval_batch_size,
            context.ranks.device,
            rank=context.ranks.rank,
            world_size=context.ranks.world_size,
            gather_objects=context.ranks.gather_objects,
            synced=context.launch.sharded,
            forced_first_token=prepared.forced_first_token,
        )
    return tuple(outputs)


def report_results(
    context: Run, base: Measurement | None, adapted: Measurement | None, reporter: Reporter
) -> None:
    """Write eval_results.json and predictions.jsonl, and print base and adapted side by side."""
    if base is None or adapted is None or not context.ranks.is_main:
        return
    scores = scored(context, base, adapted)
    rows = prediction_rows(tested(context), base, adapted)
    write_json(context.folder / EVAL_RESULTS, scores)
    write_jsonl(context.folder / "predictions.jsonl", rows)
    for part in comparison(scores, rows, context.recipe.evaluation.shown_samples):
        reporter.say(part)


def scored(context: Run, base: Measurement, adapted: Measurement) -> dict[str, Any]:
    """The content of eval_results.json."""
    task, kept = TASKS[context.recipe.task], tested(context)
    text_bytes = None
    if base.outputs is None and context.prepared.objective.name == "causal":
        text_bytes = sum(len(example.completion.encode()) for example in kept)
    references = [example.references for example in kept]
    seed = context.recipe.seed
    scores = results(task.metrics, base, adapted, references, len(kept), seed, text_bytes)
    if context.prepared.head.labels:
        scores["labels"] = list(context.prepared.head.labels)
    return scores


def report_merged(context: Run, merged: Measurement | None, folder: Path) -> None:
    """Write the merged model's scores into its folder, and print them beside the adapter's."""
    if merged is None or not context.ranks.is_main:
        return
    scores = scored(context, merged, merged)
    adapted = read_json(context.folder / EVAL_RESULTS).get("adapted", {})
    found = {"examples": scores["examples"], "adapted": adapted, "merged": scores["adapted"]}
    write_json(folder / EVAL_RESULTS, found)
    (table,) = comparison(found, [], 0, ("adapted", "merged"))
    Console().print(table)
