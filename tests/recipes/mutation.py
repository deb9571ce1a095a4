"""Changes every key of a recipe, one at a time, and looks at what a run would compute then.

Nothing is trained: what the stages receive is made as they make it, out of the changed recipe.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch

from peftune.adapters import ADAPTERS, parameter_groups
from peftune.compatibility import check_recipe
from peftune.data.order import step_rows
from peftune.data.report import data_report
from peftune.engines.launch import read_launch
from peftune.errors import PeftuneError
from peftune.plan import Plan
from peftune.preparation import plan_for, prepare_data
from peftune.quantization import BACKENDS
from peftune.recipe import Recipe, load_recipe
from peftune.resolved import one_line, set_by_user
from peftune.section import Section
from peftune.tasks import TASKS
from peftune.training.optimizer import build_optimizer
from peftune.training.schedule import learning_rate_factor

ROWS = 10_007
"""Training rows of the plan: the toys have too few for a share of the steps to be told."""
HANDED_ON = {
    "output_dir",
    "overwrite_output_dir",
    "model.attn_implementation",
    "model.dtype",
    "train.early_stopping_patience",
    "train.eval_steps",
    "train.gradient_checkpointing",
    "train.label_smoothing_factor",
    "train.load_best_model_at_end",
    "train.mixed_precision",
    "train.neftune_noise_alpha",
    "train.per_device_eval_batch_size",
    "train.save_every_minutes",
    "train.save_steps",
    "evaluation.max_new_tokens",
    "evaluation.num_beams",
    "export.merge",
}
"""Keys whose values go as they are to the stage that reads them, which a run has to show."""
OTHERS: dict[str, list[Any]] = {
    "adapter.target_modules": [["other"]],
    "data.accept.duplicates": [0.0],
    "data.accept.overlap": [1.0],
    "data.max_train_samples": [5],
    "data.max_validation_samples": [2],
    "data.max_test_samples": [2],
    "data.validation_fraction": [0.4],
    "data.doc_stride": [8],
    "model.model_name_or_path": ["/nowhere"],
}
"""Other values for keys of which not every other value makes a difference to toys."""


def unchanging_keys(path: Path, overrides: list[str], reads: set[str]) -> list[str]:
    """The keys that the file sets and that could as well be left out of it.

    `overrides` put toys in place of model and data; `reads` are the keys that a run has read. Writes
    rows that repeat others to a folder beside those of the data.
    """
    recipe = load_recipe(path, overrides)
    own = set_by_user(load_recipe(path))
    limit, repeating = _too_short(recipe), _repeating(Path(str(recipe.data.path)))
    found = []
    for key, value in own.items():
        if isinstance(value, dict) and value:
            continue  # each of its entries is a key of its own
        if key in HANDED_ON:
            counts = key in reads or key == "overwrite_output_dir"
        else:
            gate = [f"data.path={repeating}"] if key.startswith("data.accept.") else []
            counts = _changes(path, [*overrides, *gate], key, value, limit)
        found += [] if counts else [key]
    return found


def _repeating(data: Path) -> Path:
    """The same rows, of which one training row repeats another and one test row is trained on."""
    folder = data.with_name("repeating")
    shutil.copytree(data, folder)
    train = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for split, row in (("train", train[0]), ("test", train[1])):
        with (folder / f"{split}.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")
    return folder


def _changes(path: Path, overrides: list[str], key: str, value: Any, limit: int) -> bool:
    # Whatever happens to long rows shows only where there are some.
    context = [*overrides]
    if key in ("data.overlong", "data.doc_stride"):
        context.append(f"data.max_length={limit}")
    others = [limit] if key == "data.max_length" else OTHERS.get(key) or [*_others(key, value)]
    of_data = key.split(".")[0] in ("task", "model", "data")
    before = outcome(path, tuple(context), of_data)
    changed = (outcome(path, (*context, f"{key}={one_line(other)}"), of_data) for other in others)
    return bool(others) and all(after != before for after in changed)


def _others(key: str, value: Any) -> Iterator[Any]:
    """Values of the same kind as `value`: every other choice, or one other value."""
    choices = [choice for choice in _choices(key) if choice != value]
    if choices:
        yield from choices
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield 2 * value
    elif isinstance(value, float):
        yield value / 2
    elif isinstance(value, str):
        yield f"{value} other"
    else:
        yield [*value[:-1]] or ["other"]


def _choices(key: str) -> list[str]:
    """What a key may be where it is one of several words."""
    if key == "task":
        return [*TASKS]
    section, _, name = key.partition(".")
    annotation = Recipe.model_fields[section].annotation
    if name:
        parts = [kind for kind in _flat(annotation) if isinstance(kind, type)]
        kinds = [kind for kind in parts if issubclass(kind, Section)]
        fields = {key: field for kind in kinds for key, field in kind.model_fields.items()}
        annotation = fields[name].annotation if name in fields else None
    return [word for word in _flat(annotation) if isinstance(word, str)]


def _flat(annotation: Any) -> Iterator[Any]:
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _flat(argument)


@cache
def outcome(path: Path, overrides: tuple[str, ...], of_data: bool) -> list[str]:
    """What a run of the recipe would be given, or the errors that keep it from beginning.

    `of_data` looks at the rows, otherwise at the plan, the adapter, the optimizer and the quantization.
    """
    try:
        recipe = load_recipe(path, list(overrides))
    except PeftuneError as error:
        return [str(error)]
    parts = [_data] if of_data else [_plan, _adapter, _quantization]
    return [_answer(part, recipe) for part in (_checked, *parts)]


def _answer(part: Callable[[Recipe], Any], recipe: Recipe) -> str:
    try:
        return str(part(recipe))
    except PeftuneError as error:
        return f"error: {error}"


def _checked(recipe: Recipe) -> None:
    check_recipe(recipe, read_launch({}))


def _data(recipe: Recipe) -> str:
    """Every row as the model gets it, in every split, and everything else that is made of the data."""
    prepared = prepare_data(recipe)
    digest = hashlib.sha256()
    for split, rows in prepared.rows.items():
        digest.update(f"{split} {[*rows]}".encode())
    metrics = TASKS[recipe.task].metrics
    rest = [
        metrics,
        prepared.head,
        prepared.batching,
        prepared.end_ids,
        prepared.forced_first_token,
    ]
    return (
        f"{digest.hexdigest()} {rest} {json.dumps(data_report(prepared.reports, prepared.stores))}"
    )


def _plan(recipe: Recipe) -> list[Any]:
    """Steps, order of rows, learning rates."""
    plan = plan_for(recipe, ROWS, 1)
    order = step_rows(recipe.seed, 0, ROWS, plan.global_batch_size)
    return [plan, order, _rates(recipe, plan)]


def _rates(recipe: Recipe, plan: Plan) -> list[float]:
    return [
        recipe.train.learning_rate
        * learning_rate_factor(
            step,
            shape=recipe.train.lr_scheduler_type,
            warmup_steps=plan.warmup_steps,
            total_steps=plan.total_steps,
        )
        for step in range(plan.total_steps)
    ]


def _adapter(recipe: Recipe) -> list[Any]:
    """The adapter as peft is told, and its optimizer."""
    section, train = recipe.adapter, recipe.train
    config = ADAPTERS[section.method].peft_config(section, "llama", "CAUSAL_LM")
    named = [
        (f"layer.lora_{part}.default.weight", torch.nn.Parameter(torch.zeros(2, 2)))
        for part in "AB"
    ]
    groups = parameter_groups(section, named, train.learning_rate, train.weight_decay)
    shown = [(group["lr"], group["weight_decay"]) for group in groups]
    try:
        optimizer: Any = build_optimizer(train, groups)
        made = [type(optimizer).__name__, optimizer.defaults]
    except PeftuneError as error:
        made = [str(error)]
    return [sorted(config.to_dict().items(), key=lambda item: item[0]), shown, made]


def _quantization(recipe: Recipe) -> str:
    section = recipe.quantization
    if section is None:
        return ""
    return str(BACKENDS[section.method].load_kwargs(section, recipe.model.dtype, False))


def _too_short(recipe: Recipe) -> int:
    """A limit that the limit training rows do not keep to."""
    return max(len(row.input_ids) for row in prepare_data(recipe).rows["train"]) - 1
