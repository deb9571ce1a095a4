"""Questions and contexts as windows: which tokens are learnt, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from peftune.data.encoders import Encoding
from peftune.data.encoders.spans import NOWHERE, context_windows, encode
from peftune.data.examples import Example
from peftune.data.locations import read_named
from peftune.data.rows import Outcome
from peftune.data.section import DataSection
from peftune.data.span_examples import Answer
from peftune.errors import DataError
from tests.data.loading import encode_examples, read_examples

ROLES = ("context", "question", "answers")
CONTEXT = "Tom: Can you buy milk today? Ada: Yes, I will buy two bottles."


def asked(
    answer: str | None,
    start: int | None = None,
    context: str = CONTEXT,
    row: int = 0,
    who: str = "Who?",
) -> Example:
    at = context.index(answer) if answer is not None and start is None else start
    found = Answer(answer, at) if answer is not None and at is not None else None
    return Example(
        row, who, answer or "", (answer or "",), f"{context}\n{who}", (), context, answer=found
    )


def job(tokenizer: Any, **keys: Any) -> Encoding:
    return Encoding(tokenizer, DataSection(train="t.jsonl", **keys), "span")


def encoded(example: Example, tokenizer: Any, **keys: Any) -> Outcome:
    (outcome,) = encode([example], job(tokenizer, **keys))
    return outcome


@pytest.fixture(scope="module")
def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's: [CLS] and [SEP] around both texts, and token types."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] who ? tom : can you buy milk today ada yes , i will two"
    vocabulary = [*words.split(), "bottle", "##s", "."]
    return BertTokenizerFast(vocab={piece: index for index, piece in enumerate(vocabulary)})


def test_the_first_and_the_last_token_of_the_answer_are_learnt(word_pieces: Any) -> None:
    outcome = encoded(asked("two bottles"), word_pieces)
    (row,) = outcome.rows
    tokens = word_pieces.convert_ids_to_tokens(list(row.input_ids))
    first, last = map(int, row.labels)
    assert tokens[:4] == ["[CLS]", "who", "?", "[SEP]"]
    assert tokens[first : last + 1] == ["two", "bottle", "##s"]
    assert row.token_type_ids == (0,) * 4 + (1,) * (len(tokens) - 4)
    assert (outcome.fault, outcome.changed, outcome.tokens) == (None, False, len(tokens))


def test_an_unanswerable_question_points_at_the_first_token(word_pieces: Any) -> None:
    (row,) = encoded(asked(None), word_pieces).rows
    assert row.labels == NOWHERE
    assert row.input_ids[0] == word_pieces.cls_token_id


KINDS = ("tokenizer", "trimming_tokenizer", "bos_eos_tokenizer")


@settings(max_examples=60, deadline=None)
@given(
    begin=st.integers(0, len(CONTEXT) - 2),
    length=st.integers(1, 12),
    max_length=st.integers(26, 40),
    kind=st.sampled_from(KINDS),
)
def test_windows_cover_the_context_and_show_the_answer_whole(
    tokenizer: Any,
    trimming_tokenizer: Any,
    bos_eos_tokenizer: Any,
    begin: int,
    length: int,
    max_length: int,
    kind: str,
) -> None:
    chosen = dict(zip(KINDS, (tokenizer, trimming_tokenizer, bos_eos_tokenizer), strict=True))[kind]
    answer = CONTEXT[begin : begin + length].strip()
    if not answer:
        return
    example = asked(answer, CONTEXT.index(answer, begin))
    keys = {"max_length": max_length, "doc_stride": 4}
    outcome = encoded(example, chosen, **keys)
    (cut,) = context_windows([example], chosen, job(chosen, **keys).section)
    assert all(len(window.input_ids) <= max_length for window in cut)
    assert [window.begin for window in cut] == sorted({window.begin for window in cut})
    assert sum(len(w.spans) for w in cut) - 4 * (len(cut) - 1) == cut[-1].begin + len(cut[-1].spans)
    assert (cut[0].spans[0][0], cut[-1].spans[-1][1]) == (0, len(CONTEXT))
    if outcome.fault == "cut_answer":
        return
    for window, row in zip(cut, outcome.rows, strict=True):
        assert row.input_ids == window.input_ids
        if row.labels != NOWHERE:
            first, last = (window.spans[int(at) - window.first] for at in row.labels)
            assert answer in CONTEXT[first[0] : last[1]]
            assert (first[1] > begin, last[0] < example.answer.start + len(answer)) == (True, True)


def test_windows_are_those_of_the_tokenizer_itself(word_pieces: Any) -> None:
    long = " ".join([CONTEXT] * 4)
    theirs = word_pieces(
        "Who?", long, truncation="only_second", max_length=32, stride=7,
        return_overflowing_tokens=True,
    )  # fmt: skip
    ours = encoded(asked("Yes", context=long), word_pieces, max_length=32, doc_stride=7).rows
    assert len(ours) > 3
    assert [list(row.input_ids) for row in ours] == theirs["input_ids"]
    assert [list(row.token_type_ids) for row in ours] == theirs["token_type_ids"]
    assert [row.labels == NOWHERE for row in ours] == [False, *[True] * (len(ours) - 1)]


def refused(examples: list[Example], tokenizer: Any, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        encode_examples(examples, job(tokenizer, **keys), "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_that_stands_elsewhere_is_a_fault(tokenizer: Any) -> None:
    message = refused([asked("milk"), asked("milk", 3, row=1), asked("Ada", 999, row=2)], tokenizer)
    assert message == (
        "data.columns: answers: in 2 of 3 train rows the answer does not stand at its answer_start in "
        "the context, counted in characters from 0; the first is t.jsonl:2. Correct these "
        "rows, or remove them. To leave them out, set data.accept: {misplaced_answer: 0.6667}."
    )


def test_an_answer_that_no_window_holds_is_a_fault(word_pieces: Any) -> None:
    long = " ".join([CONTEXT] * 4)
    example = asked(long[5:120], context=long)
    message = refused([example], word_pieces, max_length=32, doc_stride=4)
    assert message.startswith(
        "data.doc_stride: 4 shared tokens are fewer than the answer has in 1 "
    )


def test_a_question_that_fills_the_windows_is_a_fault(word_pieces: Any) -> None:
    message = refused([asked("milk", who="Who? " * 9)], word_pieces, max_length=24, doc_stride=4)
    assert "in 1 of 1 train rows the question leaves windows of 24 tokens no room" in message


def test_a_long_question_may_have_a_short_context(word_pieces: Any) -> None:
    example = asked("milk", context="milk", who="Who? " * 9)
    assert encoded(example, word_pieces, max_length=24, doc_stride=4).fault is None


def test_an_answer_that_the_tokenizer_drops_is_a_fault() -> None:
    words = Tokenizer(models.WordLevel({"<eos>": 0, "tell": 1}, unk_token="<eos>"))
    words.normalizer = normalizers.Replace("~", "")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    for context in ("tell ~", "~"):
        assert "has no tokens in 1 of 1" in refused([asked("~", context=context)], dropping)


def read(path: Path, **columns: str) -> list[Example]:
    table = read_named([str(path)], "data.train")
    return read_examples(table, DataSection(train=str(path), columns=columns), ROLES, None)


BASE = {"context": "Ada buys milk.", "question": "Who buys?"}


@pytest.mark.parametrize(
    "answers",
    [
        {"answers": [{"text": "Ada", "answer_start": 0}, {"text": "milk", "answer_start": 9}]},
        {"answers": {"text": ["Ada", "milk"], "answer_start": [0, 9]}},
        {"answers": ["milk", "Ada"], "answer": "Ada", "answer_start": 0},
    ],
)
def test_three_forms_of_answers_are_read(answers: dict[str, Any], write_rows: Any) -> None:
    (example,) = read(write_rows("t.jsonl", {**BASE, **answers}))
    assert example.answer == Answer("Ada", 0)
    assert set(example.references) == {"Ada", "milk"}
    assert (example.prompt, example.pair) == ("Who buys?", "Ada buys milk.")


@pytest.mark.parametrize("none", [[], {"text": [], "answer_start": []}])
def test_no_answers_mean_that_there_is_none(none: Any, write_rows: Any) -> None:
    (example,) = read(write_rows("t.jsonl", {**BASE, "answers": none}))
    assert (example.answer, example.references) == (None, ("",))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "data.columns: answers: no column named 'answers' in data.train."),
        (
            {"answers": None},
            "data.columns: answers: column 'answers' is null, not a list of answers,",
        ),
        (
            {"answers": "Ada"},
            "column 'answers' is a text, not a list of answers, in 1 of 1 rows; the",
        ),
        (
            {"answers": ["Ada"]},
            "has an answer without answer_start (a whole number from 0) in 1 of 1",
        ),
        ({"answers": [{"text": "Ada"}]}, "has an answer without answer_start"),
        ({"answers": [{"text": "Ada", "answer_start": -1}]}, "has an answer without answer_start"),
        (
            {"answers": [{"text": " ", "answer_start": 0}]},
            "column 'answers' holds an answer without",
        ),
        ({"answers": [{"answer_start": 0}]}, "column 'answers' holds an answer without text"),
        (
            {"answers": [7]},
            "holds something other than texts or objects with text and answer_start",
        ),
        (
            {"answers": {"text": ["Ada"]}},
            "is an object without two equally long lists named text and",
        ),
        ({"answers": ["\ud800"], "answer_start": 0}, "holds half a surrogate pair"),
        (
            {"answers": ["Ada"], "answer": 7, "answer_start": 0},
            "stands beside a column 'answer' that is no text",
        ),
        ({"answers": [], "question": " "}, "data.columns: question: column 'question' is blank"),
        ({"answers": [], "context": 7}, "data.columns: context: column 'context' is a number, not"),
    ],
)
def test_bad_rows_are_refused(answers: dict[str, Any], message: str, write_rows: Any) -> None:
    path = write_rows("t.jsonl", {**BASE, **answers})
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
