"""The test split through base and adapted model, and what is written and shown about it."""

from typing import Any

import numpy as np
import torch

from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.evaluation.evaluate import Measurement, comparison, prediction_rows, results
from peftune.evaluation.generate import generate_on_ranks
from peftune.evaluation.label_metrics import confusion, label_results, predicted, shown_label
from peftune.records import write_json, write_jsonl
from peftune.tasks import TASKS
from peftune.training.reporting import Reporter
from peftune.training.validation import held_out_loss, held_out_scores

EVAL_RESULTS = "eval_results.json"


def measure(context: Run, engine: Engine) -> Measurement | None:
    """Loss and answers of the engine's model on the test split, if there is one."""
    rows, batching = context.prepared.rows["test"], context.prepared.batching
    if not rows:
        return None
    batch = context.recipe.train.per_device_eval_batch_size
    held_out = held_out_loss(engine, rows, batching, batch)
    if not context.prepared.objective.generates:
        outputs, scores = label_test(context, engine)
        return Measurement(outputs, held_out.loss, held_out.target_tokens, scores)
    texts = generate_test(context, engine) if TASKS[context.recipe.task].metrics else None
    return Measurement(texts, held_out.loss, held_out.target_tokens)


def label_test(context: Run, engine: Engine) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The label that each test row is given, and how good these labels are."""
    prepared = context.prepared
    rows, objective, names = prepared.rows["test"], prepared.objective.name, prepared.head.labels
    batch = context.recipe.train.per_device_eval_batch_size
    scores = np.array(held_out_scores(engine, rows, prepared.batching, batch))
    labels = np.array([row.labels for row in rows])
    if objective != "labels":
        labels = labels[:, 0]
    measures: dict[str, Any] = label_results(scores, labels, objective, context.recipe.seed)
    found = predicted(scores, objective)
    if objective == "label":
        measures["confusion_matrix"] = confusion(found, labels, names)
    return tuple(shown_label(one, objective, names) for one in found), measures


def generate_test(context: Run, engine: Engine) -> tuple[str, ...]:
    recipe, prepared = context.recipe, context.prepared
    with torch.no_grad(), engine.autocast():
        outputs = generate_on_ranks(
            engine.module,
            [row.prompt_ids for row in prepared.rows["test"]],
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
    task = TASKS[context.recipe.task]
    by_row = {example.row: example for example in context.prepared.test_examples}
    kept = [by_row[row.row] for row in context.prepared.rows["test"]]
    text_bytes = None
    if base.outputs is None:
        text_bytes = sum(len(example.completion.encode()) for example in kept)
    references = [example.references for example in kept]
    scores = results(
        task.metrics, base, adapted, references, len(kept), context.recipe.seed, text_bytes
    )
    if context.prepared.head.labels:
        scores["labels"] = list(context.prepared.head.labels)
    rows = prediction_rows(kept, base, adapted)
    write_json(context.folder / EVAL_RESULTS, scores)
    write_jsonl(context.folder / "predictions.jsonl", rows)
    for part in comparison(scores, rows, context.recipe.evaluation.shown_samples):
        reporter.say(part)
