"""Tagged words as tokens: where a tag is learnt, how long rows are cut, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from peftune.data.encoders import Encoding
from peftune.data.encoders.tagged import encode, windows
from peftune.data.examples import Example
from peftune.data.labels import LabelCounts, count_labels, label_names
from peftune.data.locations import read_named
from peftune.data.rows import IGNORED, Outcome
from peftune.data.section import DataSection, Split
from peftune.errors import DataError
from tests.data.in_memory import in_memory
from tests.data.loading import encode_examples, read_examples

NAMES = ("O", "B-PER", "B-LOC")
ROLES = ("words", "tags")


def tagged(words: str, tags: str, row: int = 0) -> Example:
    text = tuple(words.split())
    return Example(row, "", tags, (tags,), words, (), label=tags.split(), words=text)


def job(tokenizer: Any, **keys: Any) -> Encoding:
    return Encoding(tokenizer, DataSection(train="t.jsonl", **keys), "tags", labels=NAMES)


def encoded(example: Example, tokenizer: Any, **keys: Any) -> Outcome:
    (outcome,) = encode([example], job(tokenizer, **keys))
    return outcome


def shown(outcome: Outcome, tokenizer: Any) -> list[str]:
    """The tokens of each row, tags behind those that learn one."""
    return [
        " ".join(
            token if tag == IGNORED else f"{token}/{NAMES[int(tag)]}"
            for token, tag in zip(
                tokenizer.convert_ids_to_tokens(list(row.input_ids)), row.labels, strict=True
            )
        )
        for row in outcome.rows
    ]


@pytest.fixture(scope="module")
def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's: [CLS] and [SEP] around pieces of words, and token types."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tom", "saw", "in", "paris", "##ton"]
    return BertTokenizerFast(vocab={piece: index for index, piece in enumerate(pieces)})


def test_a_tag_is_learnt_at_the_first_piece_of_its_word(word_pieces: Any) -> None:
    outcome = encoded(tagged("Tom saw Pariston", "B-PER O B-LOC"), word_pieces)
    assert shown(outcome, word_pieces) == ["[CLS] tom/B-PER saw/O paris/B-LOC ##ton [SEP]"]
    assert outcome.rows[0].token_type_ids == (0,) * 6
    assert (outcome.tokens, outcome.targets, outcome.kept, outcome.fault) == (6, 3, 6, None)


def test_words_read_as_running_text_for_byte_level_tokenizers(tokenizer: Any) -> None:
    """As in the texts that the model knows: no word but the first is without its blank."""
    outcome = encoded(tagged("Tom buys milk", "B-PER O O"), tokenizer)
    row = outcome.rows[0]
    assert list(row.input_ids) == tokenizer("Tom buys milk")["input_ids"]
    assert [label for label in row.labels if label != IGNORED] == [1, 0, 0]


@pytest.mark.parametrize("trims", [True, False])
def test_both_kinds_of_offsets_find_the_same_tokens(tokenizer: Any, trims: bool) -> None:
    """GPT-2's leave the blank in front of a word out of its first token, Llama-3's do not."""
    bpe = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bpe.post_processor = processors.ByteLevel(trim_offsets=trims)
    other = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
    example = tagged("Where is Ada zzz ?", "O O B-PER B-LOC O")
    assert encoded(example, other).rows == encoded(example, tokenizer).rows


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(["Tom", "milk", "zzzzzzzz", "é", "today?", "日本"]), min_size=1),
    max_length=st.integers(8, 20),
)
def test_windows_hold_every_word_once_and_in_order(
    bos_eos_tokenizer: Any, words: list[str], max_length: int
) -> None:
    tags = [NAMES[index % 3] for index in range(len(words))]
    example = tagged(" ".join(words), " ".join(tags))
    outcome = encoded(example, bos_eos_tokenizer, max_length=max_length, overlong="split")
    learnt = [NAMES[int(tag)] for row in outcome.rows for tag in row.labels if tag != IGNORED]
    assert learnt == tags
    start, end = bos_eos_tokenizer.bos_token_id, bos_eos_tokenizer.eos_token_id
    for row in outcome.rows:
        assert len(row.input_ids) == len(row.labels) <= max_length
        assert (row.input_ids[0], row.input_ids[-1]) == (start, end)
    assert outcome.changed == (len(outcome.rows) > 1 or outcome.tokens > max_length)


def test_a_word_longer_than_a_row_keeps_its_first_tokens() -> None:
    """Words begin at 1, 3 and 9, the last ends at 10; a part holds 4 tokens."""
    assert list(windows([1, 3, 9, 10], 4)) == [(1, 3), (3, 7), (9, 10)]


def test_what_the_policies_do_with_a_long_row(tokenizer: Any) -> None:
    long = tagged("milk " * 12, "O " * 12)
    assert encoded(long, tokenizer, max_length=8).fault == "overlong"
    dropped = encoded(long, tokenizer, max_length=8, overlong="drop")
    assert (dropped.rows, dropped.fault, dropped.changed) == ((), None, True)
    cut = encoded(long, tokenizer, max_length=8, overlong="split")
    assert len(cut.rows) > 1
    assert {row.row for row in cut.rows} == {0}


def test_a_word_that_the_tokenizer_drops_is_a_fault_with_a_way_out() -> None:
    words = Tokenizer(models.WordLevel({"<eos>": 0, "tell": 1}, unk_token="<eos>"))
    words.normalizer = normalizers.Replace("~", "")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    rows = [tagged("tell", "O"), tagged("tell ~ tell", "O O O", row=1)]
    with pytest.raises(DataError) as caught:
        encode_examples(rows, job(dropping), "train")
    assert str(caught.value) == (
        "data.columns: words: 1 of 2 train rows have a word without tokens; the first is "
        "t.jsonl:2. This tokenizer drops its characters; remove the word and its tag. To leave them "
        "out, set data.accept: {untokenized_word: 0.5}."
    )


def test_an_unknown_tag_may_be_left_out(word_pieces: Any) -> None:
    assert encoded(tagged("Tom saw", "B-PER B-ORG"), word_pieces).fault == "unknown_label"


def read(path: Path, **keys: Any) -> list[Example]:
    table = read_named([str(path)], "data.train")
    return read_examples(table, DataSection(train=str(path), **keys), ROLES, None)


def test_numbers_are_ids_of_the_named_labels(write_rows: Any) -> None:
    path = write_rows("t.jsonl", {"tokens": ["Tom", "saw"], "ner": [1, 0]})
    columns = {"words": "tokens", "tags": "ner"}
    (example,) = read(path, columns=columns, labels=["O", "B-PER"])
    assert (example.words, example.label) == (("Tom", "saw"), ["B-PER", "O"])


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"words": ["a"]}, {}, "data.columns: tags: no column named 'tags' in data.train."),
        (
            {"words": "a b", "tags": ["O"]},
            {},
            "data.columns: words: column 'words' is a text, not a list with an entry for each word, "
            "in 1 of 2 rows; the first is t.jsonl:2.",
        ),
        ({"words": [], "tags": []}, {}, "data.columns: words: column 'words' is an empty list in"),
        ({"words": ["a", " "], "tags": ["O", "O"]}, {}, "column 'words' holds a blank word in"),
        ({"words": ["a", None], "tags": ["O", "O"]}, {}, "column 'words' holds null in"),
        ({"words": ["a", "\ud800"], "tags": ["O", "O"]}, {}, "holds half a surrogate pair"),
        ({"words": ["a"], "tags": [""]}, {}, "data.columns: tags: column 'tags' holds a blank tag"),
        ({"words": ["a"], "tags": [True]}, {}, "column 'tags' holds true or false in"),
        ({"words": ["a"], "tags": [0.5]}, {}, "column 'tags' holds a number in"),
        (
            {"words": ["a", "b"], "tags": ["O"]},
            {},
            "data.columns: tags: column 'tags' does not hold as many tags as column 'words' has words "
            "in 1 of 2 rows; the first is t.jsonl:2.",
        ),
        (
            {"words": ["a"], "tags": [3]},
            {},
            "column 'tags' holds numbers (name the tags in data.labels in the order of their ids) in",
        ),
        (
            {"words": ["a"], "tags": [2]},
            {"labels": ["O", "B-PER"]},
            "column 'tags' holds the number 2, and the ids of data.labels are 0 to 1, in 1 of 2 rows",
        ),
    ],
)
def test_bad_rows_are_refused(
    row: dict[str, Any], keys: dict[str, Any], message: str, write_rows: Any
) -> None:
    good = {"words": ["x"], "tags": ["O"]} if "tags" in row else {"words": ["x"]}
    path = write_rows("t.jsonl", good, row)
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def names(train: str, test: str = "O", **keys: Any) -> tuple[str, ...]:
    table = in_memory("data.train", "t.jsonl", [])
    counts: dict[Split, LabelCounts] = {
        split: count_labels([(0, tags.split())], table)
        for split, tags in {"train": train, "test": test}.items()  # type: ignore[misc]
    }
    return label_names(DataSection(train="t.jsonl", **keys), "tags", counts)


def test_the_tag_of_words_outside_comes_first() -> None:
    assert names("B-PER O I-PER B-LOC") == ("O", "B-LOC", "B-PER", "I-PER")


def test_a_named_tag_need_not_be_in_the_training_rows() -> None:
    """A list that numbers count in must be whole."""
    assert names("O B-PER", labels=["O", "B-PER", "B-MISC"]) == ("O", "B-PER", "B-MISC")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("O B-PER", "B-LOC", "data.columns: tags: test rows are labelled 'B-LOC', and no training"),
        ("O O", "O", "data.columns: tags: every word is labelled 'O'."),
    ],
)
def test_tags_that_cannot_be_learnt_are_refused(train: str, test: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        names(train, test)
    assert message in str(caught.value)
