"""Splits through the whole data layer, as the text that is left after it."""

from functools import lru_cache
from typing import Any

from peftune.data.checked import check_splits
from peftune.data.encoded import SplitJob, encode_split, kinds
from peftune.data.encoders import ENCODERS, Encoding
from peftune.data.examples import Example, Reading, read_rows, require_columns
from peftune.data.gates import check, faulty_rows, invalid_rows
from peftune.data.ledger import Ledger, ledger_batch
from peftune.data.report import SplitReport
from peftune.data.rows import EncodedRow
from peftune.data.section import SPLITS, DataSection, Split
from peftune.data.sources import open_splits
from peftune.data.table import Table
from tests.data.conftest import fast, trained_bpe
from tests.data.in_memory import in_memory


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return fast(trained_bpe())


def load_splits(
    section: DataSection, roles: tuple[str, ...], default_template: str | None, seed: int
) -> dict[Split, list[Example]]:
    """The examples that a decoder would be trained and measured on."""
    reading = Reading(section, roles, default_template)
    tables = open_splits(section, roles, default_template, seed)
    job = Encoding(_tokenizer(), section, "causal")
    encoded = {
        split: encode_split(table, SplitJob(reading.of(table), job, table.key), split, shows=False)
        for split, table in tables.items()
    }
    checked = check_splits(encoded, tables, job, seed, "truncate_prompt")
    kept = {split: set(report.ledger["row"].tolist()) for split, (_, report) in checked.items()}
    sources = {**tables, "validation": tables.get("validation", tables["train"])}
    return {
        split: [one for one in _read(sources[split], reading) if one.row in kept[split]]
        if split in kept
        else []
        for split in SPLITS
    }


def _read(table: Table, reading: Reading) -> list[Example]:
    return read_rows(table, reading.of(table), "")[0]


def read_examples(
    table: Table, section: DataSection, roles: tuple[str, ...], default_template: str | None
) -> list[Example]:
    """The examples of a table, past the gate for rows that are none."""
    reading = Reading(section, roles, default_template)
    require_columns(table, reading)
    examples, problems = read_rows(table, reading, table.key)
    check(invalid_rows(kinds((one, 1) for one in problems), "train", table, len(table)), section)
    return examples


def encode_examples(
    examples: list[Example], job: Encoding, split: Split
) -> tuple[list[EncodedRow], SplitReport]:
    """The rows of some examples, past the gates for examples of which nothing can be learnt."""
    outcomes = ENCODERS[job.objective](examples, job)
    ledger = Ledger([ledger_batch(examples, outcomes)])
    table = in_memory(
        "data.train", "t.jsonl", [{}] * (1 + max((one.row for one in examples), default=0))
    )
    policy = "truncate_prompt" if examples and examples[0].prompt else "split"
    check(faulty_rows(ledger, job.section, split, table, policy), job.section)
    rows = [row for outcome in outcomes for row in outcome.rows]
    return rows, SplitReport(split, ledger, (), 0, job.section.overlong)
