"""Questions and their contexts become windows, in which the first and last token are learnt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftune.data.encoders.job import Encoding
from peftune.data.examples import Example
from peftune.data.roles import SHORTEST_ADVANCE
from peftune.data.rows import EncodedRow, Fault, Outcome
from peftune.data.section import DataSection
from peftune.data.span_examples import Answer
from peftune.data.template import Spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NOWHERE = (0, 0)
"""What a window without an answer points at: its first token, which stands for the whole row."""


@dataclass(frozen=True)
class Window:
    """The question with a stretch of the context."""

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    first: int
    """Index of the first context token in `input_ids`."""
    begin: int
    """Index of that token among all tokens of the context."""
    spans: Spans
    """The characters of the window's context tokens in the context."""


def encode(examples: Sequence[Example], job: Encoding) -> list[Outcome]:
    """Tokenise questions with contexts, as the tokenizer joins pairs, and cut long ones to windows.

    A window holds the whole question and at most `data.max_length` tokens; it shares
    `data.doc_stride` context tokens with the next. Labels are the first and the last token of the
    answer where a window holds all of it, else `NOWHERE`.
    """
    unknown, pairs = job.unknown_id, _pairs(examples, job.tokenizer)
    return [
        _outcome(example, encoding, windows, unknown)
        for example, encoding, windows in zip(
            examples, pairs, _all_windows(pairs, job.tokenizer, job.section), strict=True
        )
    ]


def context_windows(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerFast", section: DataSection
) -> list[list[Window]]:
    """The windows of each example; none for one whose question leaves no room for a context."""
    return _all_windows(_pairs(examples, tokenizer), tokenizer, section)


def _pairs(examples: Sequence[Example], tokenizer: "PreTrainedTokenizerFast") -> list[Any]:
    if not examples:
        return []
    questions, contexts = [e.prompt for e in examples], [e.pair for e in examples]
    return list(tokenizer(questions, contexts, verbose=False).encodings or [])


def _all_windows(
    pairs: list[Any], tokenizer: "PreTrainedTokenizerFast", section: DataSection
) -> list[list[Window]]:
    types = "token_type_ids" in tokenizer.model_input_names
    return [list(_windows(pair, section, types)) for pair in pairs]


def _windows(pair: Any, section: DataSection, types: bool) -> Iterator[Window]:
    """Cut the context; what stands around it, the question among it, is in each window."""
    first, end = _context(pair)
    total = len(pair.ids)
    room = section.max_length - (total - (end - first))
    if room < end - first and room < section.doc_stride + SHORTEST_ADVANCE:
        return
    for start in _starts(first, end, room, section.doc_stride):
        stop = min(start + room, end)
        picked = [*range(first), *range(start, stop), *range(end, total)]
        yield Window(
            input_ids=tuple(pair.ids[i] for i in picked),
            token_type_ids=tuple(pair.type_ids[i] for i in picked) if types else (),
            first=first,
            begin=start - first,
            spans=tuple(pair.offsets[start:stop]),
        )


def _context(pair: Any) -> tuple[int, int]:
    """Where the context's tokens begin and end; equal when the tokenizer leaves none of it."""
    places = [index for index, text in enumerate(pair.sequence_ids) if text == 1]
    return (places[0], places[-1] + 1) if places else (len(pair.ids), len(pair.ids))


def _starts(first: int, end: int, room: int, stride: int) -> Iterator[int]:
    """Where windows of `room` tokens begin, so that two share `stride` and the last reaches `end`."""
    yield first
    while first + room < end:
        first += room - stride
        yield first


def _outcome(example: Example, pair: Any, windows: list[Window], unknown: int | None) -> Outcome:
    first, end = _context(pair)
    learnt = _answer_tokens(example.answer, pair.offsets[first:end])
    labels = [_labels(learnt, window) for window in windows]
    fault = _fault(example, windows, learnt, labels) if first < end else "no_target"
    rows = tuple(
        EncodedRow(window.input_ids, label, (), example.row, window.token_type_ids)
        for window, label in zip(windows, labels, strict=True)
    )
    return Outcome(
        row=example.row,
        rows=() if fault else rows,
        tokens=len(pair.ids),
        targets=2 * len(windows),
        kept=0 if fault else sum(len(row.input_ids) for row in rows),
        fault=fault,
        changed=len(windows) > 1,
        unknown=pair.ids.count(unknown) if unknown is not None else 0,
    )


def _answer_tokens(answer: Answer | None, spans: Sequence[tuple[int, int]]) -> range:
    """Those context tokens that hold a character of the answer, from the first to the last."""
    if answer is None:
        return range(0)
    end = answer.start + len(answer.text)
    found = [i for i, span in enumerate(spans) if answer.start < span[1] and span[0] < end]
    found = [i for i in found if spans[i][0] < spans[i][1]]
    return range(found[0], found[-1] + 1) if found else range(0)


def _labels(learnt: range, window: Window) -> tuple[int, int]:
    inside = window.begin <= learnt.start and learnt.stop <= window.begin + len(window.spans)
    if not learnt or not inside:
        return NOWHERE
    moved = window.first - window.begin
    return learnt[0] + moved, learnt[-1] + moved


def _fault(
    example: Example, windows: list[Window], learnt: range, labels: list[tuple[int, int]]
) -> Fault | None:
    if not windows:
        return "long_question"
    if example.answer is None:
        return None
    if not example.pair.startswith(*example.answer):
        return "misplaced_answer"
    if not learnt:
        return "no_target"
    return "cut_answer" if all(label == NOWHERE for label in labels) else None
