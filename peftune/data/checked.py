"""Encoded splits become the rows of a run: cut, limited, and past every gate."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from peftune.data.encoded import EncodedSplit
from peftune.data.encoders import Encoding
from peftune.data.gates import (
    Finding,
    check,
    duplicate_rows,
    faulty_rows,
    invalid_rows,
    overlapping_rows,
    unknown_tokens,
)
from peftune.data.ledger import Ledger
from peftune.data.mixture import Mixed
from peftune.data.overlap import set_aside
from peftune.data.report import SplitReport
from peftune.data.section import DataSection, Split
from peftune.data.shards import StoredRows
from peftune.data.table import Table
from peftune.errors import DataError

HELD_OUT: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class _Part:
    """A split on its way to the run."""

    rows: StoredRows
    ledger: Ledger
    table: Table
    findings: tuple[Finding, ...] = ()
    invalid: int = 0

    def choose(self, keep: np.ndarray) -> "_Part":
        """Only the examples at which `keep`, bool (examples,), is true."""
        chosen = self.ledger["row"][keep]
        rows = self.rows.select(np.isin(self.rows.sources(), chosen))
        return replace(self, rows=rows, ledger=self.ledger.select(keep))


def check_splits(
    splits: Mapping[Split, EncodedSplit],
    tables: Mapping[Split, Table],
    job: Encoding,
    seed: int,
    other_policy: str,
) -> dict[Split, tuple[StoredRows, SplitReport]]:
    """The rows of each split and what became of it. Raises DataError at the first closed gate.

    `other_policy` is the policy besides `drop` that could bring a long row of this task down.
    """
    section = job.section
    parts = {
        split: _past_row_gates(split, encoded, tables[split], section, other_policy)
        for split, encoded in splits.items()
    }
    parts = _cut(parts, section, seed)
    for split, part in parts.items():
        _require_rows(part, section, split)
    _check_between(parts, section)
    return {split: (part.rows, _report(split, part, job)) for split, part in parts.items()}


def _report(split: Split, part: _Part, job: Encoding) -> SplitReport:
    source = part.table.source
    return SplitReport(
        split=split,
        ledger=part.ledger,
        findings=part.findings,
        invalid=part.invalid,
        overlong=job.section.overlong,
        learnt="labels" if job.labels else "borders" if job.objective == "span" else "tokens",
        train_on=_part_learnt(job),
        sources=source.shares if isinstance(source, Mixed) else (),
    )


def _past_row_gates(
    split: Split, encoded: EncodedSplit, table: Table, section: DataSection, other_policy: str
) -> _Part:
    """The gates that look at one row at a time."""
    ledger = encoded.ledger
    invalid = sum(count for _, count in encoded.problems)
    source_rows = len(ledger) + invalid
    findings = [
        *invalid_rows(encoded.problems, split, table, source_rows),
        *faulty_rows(ledger, section, split, table, other_policy),
        *unknown_tokens(ledger, split, table),
    ]
    check(findings, section)
    return _Part(encoded.rows, ledger, table, tuple(findings), invalid)


def _cut(parts: dict[Split, _Part], section: DataSection, seed: int) -> dict[Split, _Part]:
    """Set validation rows aside if the recipe says so, then keep to its limits."""
    if section.validation_fraction is not None:
        whole = parts["train"]
        validated = set_aside(whole.ledger["normalized"], section.validation_fraction, seed)
        parts = {
            **parts,
            "train": whole.choose(~validated),
            "validation": replace(whole.choose(validated), findings=(), invalid=0),
        }
    return {split: _limited(part, section.sample_limit(split)) for split, part in parts.items()}


def _limited(part: _Part, limit: int | None) -> _Part:
    if limit is None or len(part.ledger) <= limit:
        return part
    return part.choose(np.arange(len(part.ledger)) < limit)


def _require_rows(part: _Part, section: DataSection, split: Split) -> None:
    if len(part.rows):
        return
    if not len(part.ledger):
        raise DataError(f"{part.table.key}: {part.table.place} has no row that can be used.")
    raise DataError(
        f"data.overlong: drop removed all {len(part.ledger):,} {split} rows; each is longer than "
        f"data.max_length: {section.max_length}."
    )


def _check_between(parts: dict[Split, _Part], section: DataSection) -> None:
    """The gates that compare rows with rows; what is accepted stays on record."""
    train = parts["train"]
    findings: dict[Split, list[Finding]] = {"train": duplicate_rows(train.ledger, train.table)}
    places = {split: part.table for split, part in parts.items()}
    for split in HELD_OUT:
        if split in parts:
            findings[split] = overlapping_rows(train.ledger, parts[split].ledger, split, places)
    for split, found in findings.items():
        check(found, section)
        part = parts[split]
        parts[split] = replace(part, findings=(*part.findings, *found))


def _part_learnt(job: Encoding) -> str:
    if job.objective in ("masked", "corrupted"):
        return "a share of them in each step"
    return job.section.train_on or ("assistant" if job.chat else "")
