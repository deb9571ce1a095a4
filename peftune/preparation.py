"""Rows, tokenizer and plan of a recipe: everything a run knows before it loads weights."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftune.data.chat_format import chat_template_text, probed_format
from peftune.data.checked import check_splits
from peftune.data.collate import Batching
from peftune.data.corruption import corruption
from peftune.data.detection import languages_chosen
from peftune.data.encoded import SplitJob, counted_labels, encode_split
from peftune.data.encoders import Encoding
from peftune.data.examples import Example, Reading, read_rows
from peftune.data.labels import label_names, label_objective
from peftune.data.languages import forced_first_token, set_languages
from peftune.data.preview import preview, write_html
from peftune.data.report import SplitReport, data_report
from peftune.data.roles import learns_conversations, learns_tags, learns_whole_text
from peftune.data.section import SPLITS, Split
from peftune.data.shards import StoredRows
from peftune.data.sources import open_splits
from peftune.data.table import Table
from peftune.errors import DataError, ModelError
from peftune.model.base import load_config, load_tokenizer, require_end_token
from peftune.model.head import Head, model_class, require_head
from peftune.model.positions import positions
from peftune.objectives import OBJECTIVES, Objective
from peftune.plan import Plan, make_plan
from peftune.recipe import Recipe
from peftune.reported import read_report, report_file, write_report
from peftune.tasks import TASKS
from peftune.unread import (
    BY_DATA,
    BY_MODEL,
    BY_PLAN,
    BY_RECIPE,
    Learning,
    Opened,
    refuse_unread,
)


@dataclass(frozen=True)
class Prepared:
    """The data of a run as tokens, split by split, and what is learnt from it."""

    tokenizer: Any
    head: Head
    batching: Batching
    rows: Mapping[Split, StoredRows]
    stores: Mapping[Split, str]
    """For each split the name that says what its tokens were made from."""
    reports: Mapping[Split, SplitReport]
    test_examples: Sequence[Example]
    """The test rows as text, in the order of the source."""
    forced_first_token: int | None
    """What every generated text must start with: the code of its language."""

    @property
    def objective(self) -> Objective:
        return self.head.objective

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens at which a completion ends."""
        found = {end for report in self.reports.values() for end in report.ledger.end_ids()}
        return tuple(sorted(found | {self.tokenizer.eos_token_id}))


def prepare_data(recipe: Recipe, shows: bool = False) -> Prepared:
    """Load, check and tokenise every split; `shows` progress where that takes a while.

    Raises RecipeError, DataError and ModelError.
    """
    task, section = TASKS[recipe.task], recipe.data
    reading = Reading(section, task.roles, task.prompt_template)
    refuse_unread(recipe, BY_RECIPE, recipe)
    tables = open_splits(section, task.roles, task.prompt_template, recipe.seed)
    refuse_unread(recipe, BY_DATA, Opened(recipe, frozenset(tables)))
    tokenizer, config = _loaded(recipe, tables)
    head = _head(recipe, config, tables, reading, tokenizer.pad_token_id)
    refuse_unread(recipe, BY_MODEL, Learning(head.objective, config.is_encoder_decoder))
    _prepare_tokenizer(recipe, head.objective, tokenizer, languages_chosen(tables.values()))
    encoding = _encoding(recipe, head, tokenizer, config)
    splits = {
        split: encode_split(
            table,
            SplitJob(
                reading.of(table),
                # Only test rows are generated from.
                replace(encoding, prompts=split == "test"),
                table.key,
            ),
            split,
            shows,
        )
        for split, table in tables.items()
    }
    splits_rows = learns_whole_text(task.roles) or learns_tags(task.roles)
    other_policy = "split" if splits_rows else "truncate_prompt"
    checked = check_splits(splits, tables, encoding, recipe.seed, other_policy)
    reports = {split: report for split, (_, report) in checked.items()}
    _require_positions(recipe, config, reports)
    return Prepared(
        tokenizer=tokenizer,
        head=head,
        batching=_batching(recipe, head, tokenizer, config),
        rows={split: checked[split][0] if split in checked else StoredRows([]) for split in SPLITS},
        stores={split: encoded.folder.name for split, encoded in splits.items()},
        reports=reports,
        test_examples=_test_examples(tables, reading),
        forced_first_token=forced_first_token(tokenizer, section),
    )


def _loaded(recipe: Recipe, tables: Mapping[Split, Table]) -> tuple[Any, Any]:
    """Tokenizer and configuration; meanwhile the sources are hashed, as importing transformers takes
    seconds and hashing leaves the interpreter free."""
    with ThreadPoolExecutor() as pool:
        for table in tables.values():
            pool.submit(table.fingerprint)
        return load_tokenizer(recipe.model), load_config(recipe.model)


def _test_examples(tables: Mapping[Split, Table], reading: Reading) -> Sequence[Example]:
    table = tables.get("test")
    return () if table is None else read_rows(table, reading.of(table), "")[0]


def _head(
    recipe: Recipe, config: Any, tables: Mapping[Split, Table], reading: Reading, pad_token_id: int
) -> Head:
    """What this model predicts for this task. Raises ModelError for a model that cannot."""
    possible, found = TASKS[recipe.task].objectives, model_class(config)
    if found not in possible:
        raise ModelError(
            f"task: {recipe.task} needs a model that is {' or '.join(possible)}; "
            f"{recipe.model.model_name_or_path!r} is {found}."
        )
    name = possible[found]
    require_head(config, OBJECTIVES[name], recipe.task)
    if OBJECTIVES[name].generates or name == "span":
        return Head(OBJECTIVES[name], (), pad_token_id)
    counts = {split: counted_labels(table, reading.of(table)) for split, table in tables.items()}
    if name != "tags":
        name = label_objective(recipe.data, counts["train"])
    names = label_names(recipe.data, name, counts)
    return Head(OBJECTIVES[name], names, pad_token_id)


def _prepare_tokenizer(recipe: Recipe, objective: Objective, tokenizer: Any, chosen: bool) -> None:
    if objective.writes:
        require_end_token(recipe.model, tokenizer)
    reads_and_writes = objective.name in ("seq2seq", "corrupted")
    if reads_and_writes or recipe.data.source_language or recipe.data.target_language:
        set_languages(tokenizer, recipe.data, chosen)
    if objective.name == "corrupted" and recipe.data.source_language != recipe.data.target_language:
        raise DataError(
            f"data.target_language: {recipe.data.target_language}, but a text is in one language, the "
            f"{recipe.data.source_language} of data.source_language; give both the same code."
        )
    template = chat_template_text(recipe.data, tokenizer, needed=_talks(recipe))
    if template is not None:
        # Saved with the adapter, so that whoever loads it renders chats as they were learnt.
        tokenizer.chat_template = template


def _talks(recipe: Recipe) -> bool:
    return learns_conversations(TASKS[recipe.task].roles)


def _encoding(recipe: Recipe, head: Head, tokenizer: Any, config: Any) -> Encoding:
    # The head of an encoder-decoder reads the score at the end token, and plain text has to end.
    objective = head.objective
    closes = config.is_encoder_decoder and objective.name != "seq2seq"
    chats = recipe.data.chat_template is not None or _talks(recipe)
    return Encoding(
        tokenizer=tokenizer,
        section=recipe.data,
        objective=head.objective.name,
        chat=probed_format(tokenizer, tokenizer.chat_template) if chats else None,
        labels=head.labels,
        closing_id=tokenizer.eos_token_id if closes else None,
    )


def _batching(recipe: Recipe, head: Head, tokenizer: Any, config: Any) -> Batching:
    objective = head.objective.name
    # mBART's decoder starts from the last token of the target, which says its language.
    starts = objective in ("seq2seq", "corrupted") and config.model_type != "mbart"
    start = config.decoder_start_token_id if starts else None
    vocabulary = config.get_text_config().vocab_size
    hides = corruption(objective, tokenizer, vocabulary, recipe.data, recipe.seed)
    return Batching(objective, head.pad_token_id, start, hides)


def _require_positions(recipe: Recipe, config: Any, reports: Mapping[Split, SplitReport]) -> None:
    """A row beyond the model's positions would fail in the middle of training, on a GPU without a
    reason."""
    limit, allowed = positions(config), recipe.data.max_length
    for split, report in reports.items():
        longest = report.longest_row(allowed)
        if limit is not None and longest > limit:
            raise DataError(
                f"data.max_length: {allowed} lets {split} rows of {longest:,} tokens through, and "
                f"{recipe.model.model_name_or_path!r} has {limit:,} positions; set "
                f"data.max_length: {limit} and data.overlong."
            )


def plan_for(recipe: Recipe, rows: int, world_size: int) -> Plan:
    """The recipe's arithmetic for so many training rows and devices. Raises RecipeError."""
    train = recipe.train
    plan = make_plan(
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
    refuse_unread(recipe, BY_PLAN, plan)
    return plan


def report_data(recipe: Recipe) -> dict[str, Any]:
    """`peftune prepare`: make the tokens of every split, check them, and say what became of the rows.

    Where nothing has changed since the last time, that is read from disk.
    """
    known = report_file(recipe)
    before = read_report(known)
    if before is not None:
        return before
    prepared = prepare_data(recipe, shows=True)
    report = data_report(prepared.reports, prepared.stores)
    write_report(known, report, prepared.stores.values())
    return report


def preview_recipe(recipe: Recipe, count: int, html: Path | None) -> list[Any]:
    """`peftune preview`: the first training rows as coloured text, also as a page.

    Where a step hides parts of them, as the first one would.
    """
    prepared = prepare_data(recipe, shows=True)
    head, first = prepared.head, prepared.rows["train"][:count]
    rows = [prepared.batching.drawn(row, index, step=0) for index, row in enumerate(first)]
    texts = preview(rows, prepared.tokenizer, head.objective.name, head.labels, count)
    if html is not None:
        write_html(texts, html)
    return texts
