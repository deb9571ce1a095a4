"""What the splits must pass before anything is trained on them, with counts and the worst rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from peftune.data.columns import Problem
from peftune.data.ledger import FAULTS, NO_FAULT, Ledger
from peftune.data.rows import Fault
from peftune.data.section import DataSection, Gate, Split
from peftune.data.table import Table
from peftune.errors import DataError

WORST = 5
"""How many of the worst rows are named."""
MOSTLY_UNKNOWN = 0.5
"""From this share of unknown tokens on, a row was written for another tokenizer."""

SENTENCES: dict[Fault, str] = {
    "no_target": "data.columns: what is to be learnt has no tokens in {which}; the first is {place}. "
    "This tokenizer drops its characters",
    "unknown_label": "data.columns: label: {which} have a label that is not learnt; the first is "
    "{place}",
    "untokenized_word": "data.columns: words: {which} have a word without tokens; the first is "
    "{place}. This tokenizer drops its characters; remove the word and its tag",
    "long_question": "data.max_length: in {which} the question leaves windows of {section.max_length} "
    "tokens no room for a context and data.doc_stride: {section.doc_stride}; the first is {place}. "
    "Raise data.max_length, or lower data.doc_stride",
    "misplaced_answer": "data.columns: answers: in {which} the answer does not stand at its "
    "answer_start in the context, counted in characters from 0; the first is {place}. Correct these "
    "rows, or remove them",
    "cut_answer": "data.doc_stride: {section.doc_stride} shared tokens are fewer than the answer has "
    "in {which}, and no window holds it whole; the first is {place}. Raise data.doc_stride or "
    "data.max_length",
}


@dataclass(frozen=True)
class Finding:
    """Rows of a split that did not pass a gate."""

    gate: Gate
    split: Split
    rows: int
    of: int
    worst: tuple[str, ...]
    """Places in the source, the worst first; at most WORST."""
    message: str
    """Key, counts, what is wrong and the way out, without the last full stop."""
    left_out: bool
    """Whether such rows are left out where they are accepted; otherwise they stay."""

    def to_dict(self) -> dict[str, Any]:
        """For data_report.json."""
        return {"gate": self.gate, "split": self.split, "rows": self.rows, "of": self.of,
                "worst": list(self.worst), "left_out": self.left_out}  # fmt: skip


IN_CHAT_FORMAT: dict[Fault, tuple[str, str, str]] = {
    "control_token": (
        "data.columns: messages",
        "a message holds a token with which the chat template ends or begins turns in",
        "Take such tokens out of the messages; the template writes them",
    ),
    "template": (
        "data.chat_template",
        "the template refuses a conversation, or leaves a part of it out, in",
        "Change these rows, or give the path of a Jinja file that can write them",
    ),
    "history": (
        "data.chat_template",
        "the template writes earlier turns differently from how the model answered them in",
        "Set data.train_on: last to learn the last answer only, or give the path of a Jinja file "
        "that keeps earlier turns or marks answers with {% generation %}",
    ),
    "no_end": (
        "data.chat_template",
        "the template writes no token at the end of an answer in",
        "Set data.train_on: last, or give the path of a Jinja file that ends every turn with a token",
    ),
}
"""Of each fault in chat format: the key, what is wrong, and the way out."""


def check(findings: Sequence[Finding], section: DataSection) -> None:
    """Raise DataError for the first finding of which more rows are concerned than is accepted."""
    for finding in findings:
        accepted = section.accept.get(finding.gate, 0.0)
        if finding.rows > accepted * finding.of:
            raise DataError(f"{finding.message}.{_way_out(finding)}")


def _way_out(finding: Finding) -> str:
    if finding.rows == finding.of:
        return ""
    share = math.ceil(finding.rows / finding.of * 10_000) / 10_000
    effect = "leave them out" if finding.left_out else "go on with them"
    return f" To {effect}, set data.accept: {{{finding.gate}: {share:g}}}."


def invalid_rows(
    problems: Sequence[tuple[Problem, int]], split: Split, table: Table, rows: int
) -> list[Finding]:
    """Rows that are no examples, one finding for each kind; `rows` is what the source holds."""
    return [
        Finding(
            gate="invalid",
            split=split,
            rows=count,
            of=rows,
            worst=(table.at(first.row),),
            message=f"{first.text} in {count:,} of {rows:,} rows; the first is {table.at(first.row)}",
            left_out=True,
        )
        for first, count in problems
    ]


def faulty_rows(
    ledger: Ledger, section: DataSection, split: Split, table: Table, other_policy: str
) -> list[Finding]:
    """Examples of which nothing can be learnt.

    `other_policy` is the policy besides `drop` that could bring a long row of this task down.
    """
    found: list[Finding] = []
    if (ledger["fault"] == NO_FAULT).all():
        return found
    for fault in FAULTS:
        lines = ledger.select(ledger.faulty(fault))
        if len(lines):
            order = np.argsort(-lines["tokens"], kind="stable") if fault == "overlong" else None
            worst = lines if order is None else lines.select(order)
            message = _fault_message(fault, worst, len(ledger), section, split, table, other_policy)
            places = tuple(table.at(int(row)) for row in worst["row"][:WORST])
            found.append(Finding(fault, split, len(lines), len(ledger), places, message, True))
    return found


def _fault_message(
    fault: Fault,
    worst: Ledger,
    examples: int,
    section: DataSection,
    split: Split,
    table: Table,
    other_policy: str,
) -> str:
    which = f"{len(worst):,} of {examples:,} {split} rows"
    place, tokens = table.at(int(worst["row"][0])), int(worst["tokens"][0])
    if fault in IN_CHAT_FORMAT:
        key, wrong, way_out = IN_CHAT_FORMAT[fault]
        because = f", where {worst['reason'][0]}" if worst["reason"][0] else ""
        return f"{key}: {wrong} {which}; the first is {place}{because}. {way_out}"
    if fault in SENTENCES:
        return SENTENCES[fault].format(which=which, place=place, section=section)
    if section.overlong == "truncate_prompt":
        return (
            f"data.overlong: truncate_prompt cannot bring {which} down to data.max_length: "
            f"{section.max_length} without touching the template or the completion; the longest is "
            f"{place} with {tokens:,} tokens, {int(worst['targets'][0]):,} of them learnt. Raise "
            "data.max_length, or set data.overlong: drop"
        )
    return (
        f"data.max_length: {which} are longer than {section.max_length} tokens; the longest is "
        f"{place} with {tokens:,}. Raise data.max_length, or set data.overlong: drop or "
        f"{other_policy}"
    )


def unknown_tokens(ledger: Ledger, split: Split, table: Table) -> list[Finding]:
    """Examples that are mostly characters the tokenizer does not know."""
    bad = ledger["unknown"] >= np.maximum(MOSTLY_UNKNOWN * ledger["tokens"], 1)
    if not bad.any():
        return []
    places = tuple(table.at(int(row)) for row in ledger["row"][bad][:WORST])
    count = int(bad.sum())
    message = (
        f"model.model_name_or_path: at least half of the tokens are unknown to this model's "
        f"tokenizer in {count:,} of {len(ledger):,} {split} rows; the first is {places[0]}. Choose a "
        "model of this language, or check the encoding of the file"
    )
    return [Finding("unknown_tokens", split, count, len(ledger), places, message, False)]


def duplicate_rows(ledger: Ledger, table: Table) -> list[Finding]:
    """Training rows that say the same as an earlier one, letter for letter."""
    whole = ledger["whole"]
    ordered = np.sort(whole)
    if not (ordered[1:] == ordered[:-1]).any():  # far quicker than finding out which ones repeat
        return []
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    earlier = first[inverse]
    repeats = np.flatnonzero(earlier != np.arange(len(ledger)))
    places = tuple(table.at(int(row)) for row in ledger["row"][repeats][:WORST])
    original = table.at(int(ledger["row"][earlier[repeats[0]]]))
    message = (
        f"{table.key}: {len(repeats):,} of {len(ledger):,} train rows repeat an earlier one; the "
        f"first is {places[0]}, the same as {original}. Remove them"
    )
    return [Finding("duplicates", "train", len(repeats), len(ledger), places, message, False)]


def overlapping_rows(
    train: Ledger, held_out: Ledger, split: Split, tables: Mapping[Split, Table]
) -> list[Finding]:
    """Validation or test rows that ask what a training row answers.

    Two rows overlap when their sources agree, blind to case, white space and punctuation. The
    completion does not count: a question that was trained with another answer is no test either.
    """
    found = np.flatnonzero(np.isin(held_out["normalized"], train["normalized"]))
    if not len(found):
        return []
    exact = int(np.isin(held_out["source"][found], train["source"]).sum())
    places = tuple(tables[split].at(int(row)) for row in held_out["row"][found][:WORST])
    same = int(np.flatnonzero(train["normalized"] == held_out["normalized"][found[0]])[0])
    message = (
        f"{tables[split].key}: {len(found):,} of {len(held_out):,} {split} rows are also trained on "
        f"({exact:,} letter for letter); the first is {places[0]}, the same as "
        f"{tables['train'].at(int(train['row'][same]))}. Remove them from one of the two"
    )
    return [Finding("overlap", split, len(found), len(held_out), places, message, False)]
