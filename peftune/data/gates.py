"""What a split must pass before anything is trained on it, with counts and the worst rows."""

from peftune.data.rows import Fault
from peftune.data.section import DataSection, Split
from peftune.data.tally import Cases, Tally
from peftune.errors import DataError


def check_tally(tally: Tally, section: DataSection, split: Split, other_policy: str) -> None:
    """Raise DataError for faults, and for a split of which nothing is left.

    `other_policy` is the policy besides `drop` that could bring a long row of this task down.
    """
    for fault, cases in tally.faults.items():
        if cases.count:
            raise DataError(_message(fault, cases, tally, section, split, other_policy))
    if tally.examples and not tally.rows:
        raise DataError(
            f"data.overlong: drop removed all {tally.examples:,} {split} rows; each is longer than "
            f"data.max_length: {section.max_length}."
        )


def _message(
    fault: Fault,
    cases: Cases,
    tally: Tally,
    section: DataSection,
    split: Split,
    other_policy: str,
) -> str:
    which = f"{cases.count:,} of {tally.examples:,} {split} rows"
    tokens, row, targets = cases.worst[0]
    if fault == "no_target":
        return (
            f"data.columns: the completion has no tokens in {which}; the first is row {row + 1}. "
            "This tokenizer drops its characters."
        )
    if section.overlong == "truncate_prompt":
        return (
            f"data.overlong: truncate_prompt cannot bring {which} down to data.max_length: "
            f"{section.max_length} without touching the template or the completion; the longest is "
            f"row {row + 1} with {tokens:,} tokens, {targets:,} of them learnt. Raise "
            "data.max_length, or set data.overlong: drop."
        )
    return (
        f"data.max_length: {which} are longer than {section.max_length} tokens; the longest is row "
        f"{row + 1} with {tokens:,}. Raise data.max_length, or set data.overlong: drop or "
        f"{other_policy}."
    )
