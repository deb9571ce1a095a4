"""Splits through the whole data layer, as the text that is left after it."""

from functools import lru_cache
from typing import Any

from peftune.data.checked import check_splits
from peftune.data.encoded import SplitJob, encode_split
from peftune.data.encoders import Encoding
from peftune.data.examples import Example, Reading, read_rows
from peftune.data.section import SPLITS, DataSection, Split
from peftune.data.sources import open_splits
from tests.data.conftest import fast, trained_bpe


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return fast(trained_bpe())


def load_splits(
    section: DataSection, roles: tuple[str, ...], default_template: str | None, seed: int
) -> dict[Split, list[Example]]:
    """The examples that a decoder would be trained and measured on."""
    reading = Reading(section, roles, default_template)
    tables = open_splits(section, roles, default_template)
    job = Encoding(_tokenizer(), section, "causal")
    encoded = {
        split: encode_split(table, SplitJob(reading, job, table.key), split, shows=False)
        for split, table in tables.items()
    }
    checked = check_splits(encoded, tables, job, seed, "truncate_prompt")
    kept = {split: set(report.ledger["row"].tolist()) for split, (_, report) in checked.items()}
    sources = {**tables, "validation": tables.get("validation", tables["train"])}
    return {
        split: [one for one in read_rows(sources[split], reading, "")[0] if one.row in kept[split]]
        if split in kept
        else []
        for split in SPLITS
    }
