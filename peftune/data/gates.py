"""What a split must pass before anything is trained on it, with counts and the worst rows."""

from peftune.data.rows import Fault
from peftune.data.section import DataSection, Split
from peftune.data.tally import Cases, Tally
from peftune.errors import DataError

SENTENCES: dict[Fault, str] = {
    "no_target": "data.columns: what is to be learnt has no tokens in {which}; the first is row "
    "{row}. This tokenizer drops its characters.",
    "untokenized_word": "data.columns: words: {which} have a word without tokens; the first is row "
    "{row}. This tokenizer drops its characters; remove the word and its tag.",
    "long_question": "data.max_length: in {which} the question leaves windows of {section.max_length} "
    "tokens no room for a context and data.doc_stride: {section.doc_stride}; the first is row {row}. "
    "Raise data.max_length, or lower data.doc_stride.",
    "misplaced_answer": "data.columns: answers: in {which} the answer does not stand at its "
    "answer_start in the context, counted in characters from 0; the first is row {row}. Correct "
    "these rows, or remove them.",
    "cut_answer": "data.doc_stride: {section.doc_stride} shared tokens are fewer than the answer has "
    "in {which}, and no window holds it whole; the first is row {row}. Raise data.doc_stride or "
    "data.max_length.",
}


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
    if fault in SENTENCES:
        return SENTENCES[fault].format(which=which, row=row + 1, section=section)
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
