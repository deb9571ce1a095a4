"""Rows, tokenizer and plan of a recipe: everything a run knows before it loads weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftune.data.chat import chat_template_text
from peftune.data.encoding import EncodedRow, EncodingReport, encode
from peftune.data.examples import Example
from peftune.data.preview import preview
from peftune.data.section import SPLITS, Split
from peftune.data.sources import load_splits
from peftune.errors import RecipeError
from peftune.model.base import load_tokenizer
from peftune.plan import Plan, make_plan
from peftune.recipe import Recipe
from peftune.tasks import TASKS


@dataclass(frozen=True)
class Prepared:
    """The data of a run as text and as tokens, split by split."""

    tokenizer: Any
    examples: Mapping[Split, list[Example]]
    rows: Mapping[Split, list[EncodedRow]]
    reports: Mapping[Split, EncodingReport]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens at which a completion ends."""
        found = {end for report in self.reports.values() for end in report.end_ids}
        return tuple(sorted(found | {self.tokenizer.eos_token_id}))


def prepare_data(recipe: Recipe) -> Prepared:
    """Load, check and tokenise every split. Raises RecipeError, DataError and ModelError."""
    task = TASKS[recipe.task]
    examples = load_splits(recipe.data, task.roles, task.prompt_template, recipe.seed)
    _require_validation(recipe, examples)
    tokenizer = load_tokenizer(recipe.model)
    if recipe.data.chat_template is not None:
        # Saved with the adapter, so that whoever loads it renders chats as they were learnt.
        tokenizer.chat_template = chat_template_text(recipe.data, tokenizer)
    encoded = {
        split: encode(examples[split], tokenizer, recipe.data, split)
        for split in SPLITS
        if examples[split]
    }
    return Prepared(
        tokenizer=tokenizer,
        examples=examples,
        rows={split: encoded[split][0] if split in encoded else [] for split in SPLITS},
        reports={split: report for split, (_, report) in encoded.items()},
    )


def _require_validation(recipe: Recipe, examples: Mapping[Split, list[Example]]) -> None:
    if recipe.train.eval_steps is not None and not examples["validation"]:
        raise RecipeError(
            f"train.eval_steps: {recipe.train.eval_steps} needs validation rows, and the data has "
            "none. Name a file in data.validation, set data.validation_fraction, or remove the key."
        )


def plan_for(recipe: Recipe, rows: int, world_size: int) -> Plan:
    """The recipe's arithmetic for so many training rows and devices."""
    train = recipe.train
    return make_plan(
        rows=rows,
        world_size=world_size,
        per_device=train.per_device_train_batch_size,
        global_batch=train.global_batch_size,
        accumulation=train.gradient_accumulation_steps,
        epochs=train.num_train_epochs,
        max_steps=train.max_steps,
        warmup_steps=train.warmup_steps,
        warmup_ratio=train.warmup_ratio,
    )


def plan_recipe(recipe: Recipe, world_size: int) -> Plan:
    """`peftune plan`: the plan after the data policies have been applied."""
    return plan_for(recipe, len(prepare_data(recipe).rows["train"]), world_size)


def preview_recipe(recipe: Recipe, count: int) -> list[Any]:
    """`peftune preview`: the first training rows as coloured text."""
    prepared = prepare_data(recipe)
    return preview(prepared.rows["train"], prepared.tokenizer, count)
