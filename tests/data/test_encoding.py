from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peftune.data.chat_format import chat_template_text, probed_format
from peftune.data.encoders import Encoding
from peftune.data.examples import Example
from peftune.data.report import SplitReport
from peftune.data.rows import EncodedRow
from peftune.data.section import DataSection, Split
from peftune.errors import DataError
from tests.data.loading import encode_examples


def section(**keys: Any) -> DataSection:
    return DataSection(train="t.jsonl", **keys)


def ask(prompt: str, completion: str, *fields: tuple[int, int], row: int = 0) -> Example:
    return Example(row, prompt, completion, (completion,), prompt, fields)


def text(content: str, row: int = 0) -> Example:
    return Example(row, "", content, (content,), content, ())


def encode(
    examples: list[Example], tokenizer: Any, keys: DataSection, split: Split
) -> tuple[list[EncodedRow], SplitReport]:
    template = chat_template_text(keys, tokenizer)
    chat = probed_format(tokenizer, template) if template else None
    return encode_examples(examples, Encoding(tokenizer, keys, "causal", chat=chat), split)


def encode_one(example: Example, tokenizer: Any, **keys: Any) -> EncodedRow:
    [row], _ = encode([example], tokenizer, section(**keys), "train")
    return row


def shown(row: EncodedRow, tokenizer: Any) -> list[str]:
    """Each token as text, the learnt ones in square brackets."""
    tokens = tokenizer.convert_ids_to_tokens(list(row.input_ids))
    pairs = zip(tokens, row.labels, row.input_ids, strict=True)
    assert all(label in (-100, token_id) for _, label, token_id in pairs)
    tokens = [token.replace("Ġ", "_").replace("Ċ", "\\n") for token in tokens]
    labelled = zip(tokens, row.labels, strict=True)
    return [token if label == -100 else f"[{token}]" for token, label in labelled]


def tokens_of(ids: tuple[int, ...], tokenizer: Any) -> list[str]:
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [token.replace("Ġ", "_").replace("Ċ", "\\n") for token in tokens]


def test_the_completion_and_the_end_are_learnt(tokenizer: Any) -> None:
    row = encode_one(ask("Tom: milk\nSummary:", "Ada buys milk."), tokenizer)
    assert shown(row, tokenizer) == [
        "Tom", ":", "_milk", "\\n", "Summary", ":",
        "[_Ada]", "[_buys]", "[_milk]", "[.]", "[<eos>]",
    ]  # fmt: skip
    assert tokens_of(row.prompt_ids, tokenizer) == ["Tom", ":", "_milk", "\\n", "Summary", ":"]


@pytest.mark.parametrize("prompt", ["Summary:", "Summary: "])
def test_a_blank_that_stands_alone_at_the_seam_is_learnt(
    prompt: str, tokenizer: Any, trimming_tokenizer: Any
) -> None:
    """Two blanks before a word leave one token that is nothing but a blank."""
    for tried in (tokenizer, trimming_tokenizer):
        row = encode_one(ask(prompt, "  Ada"), tried)
        assert shown(row, tried) == ["Summary", ":", "[_]", "[_Ada]", "[<eos>]"]
        assert tokens_of(row.prompt_ids, tried) == ["Summary", ":"]


def test_a_token_that_reaches_over_the_seam_is_learnt() -> None:
    """`ab` is one token, and the seam runs through `a|b` when the prompt ends in a tab."""
    bpe = Tokenizer(
        models.BPE(vocab={"<eos>": 0, "a": 1, "\t": 2, "b": 3, "\tb": 4}, merges=[("\t", "b")])
    )
    crossing = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
    row = encode_one(ask("a\t", "b"), crossing)
    assert row.input_ids == (1, 4, 0)
    assert row.labels == (-100, 4, 0)
    assert row.prompt_ids == (1, 2)


def test_a_start_token_is_kept_and_not_learnt(bos_tokenizer: Any) -> None:
    row = encode_one(ask("Tom:", "milk"), bos_tokenizer)
    assert shown(row, bos_tokenizer) == ["<bos>", "Tom", ":", "[_milk]", "[<eos>]"]
    assert tokens_of(row.prompt_ids, bos_tokenizer) == ["<bos>", "Tom", ":"]


def test_an_end_token_is_not_added_twice(tokenizer: Any, bos_eos_tokenizer: Any) -> None:
    row = encode_one(ask("Tom:", "milk"), bos_eos_tokenizer)
    assert shown(row, bos_eos_tokenizer) == ["<bos>", "Tom", ":", "[_milk]", "[<eos>]"]
    assert tokens_of(row.prompt_ids, bos_eos_tokenizer) == ["<bos>", "Tom", ":"]
    row = encode_one(ask("Tom:", "milk<eos>"), tokenizer)
    assert shown(row, tokenizer) == ["Tom", ":", "[_milk]", "[<eos>]"]


def test_the_prompt_is_learnt_too_where_asked(tokenizer: Any, bos_tokenizer: Any) -> None:
    for tried, first in ((tokenizer, ["Tom"]), (bos_tokenizer, ["<bos>", "[Tom]"])):
        row = encode_one(ask("Tom:", "milk"), tried, train_on="all")
        assert shown(row, tried) == [*first, "[:]", "[_milk]", "[<eos>]"]
        assert tokens_of(row.prompt_ids, tried)[-2:] == ["Tom", ":"]


def test_plain_text_is_learnt_whole(tokenizer: Any, bos_tokenizer: Any) -> None:
    row = encode_one(text("Tom: milk"), bos_tokenizer)
    assert shown(row, bos_tokenizer) == ["<bos>", "[Tom]", "[:]", "[_milk]", "[<eos>]"]
    assert row.prompt_ids == ()
    # Without a start token nothing can predict the first one.
    row = encode_one(text("Tom: milk"), tokenizer)
    assert shown(row, tokenizer) == ["Tom", "[:]", "[_milk]", "[<eos>]"]


def test_a_chat_learns_the_answer_and_its_end_of_turn(chat_tokenizer: Any) -> None:
    row = encode_one(ask("Tom", "Ada"), chat_tokenizer, chat_template="tokenizer")
    prompt = [
        "<|im_start|>", "u", "s", "e", "r", "\\n", "Tom", "<|im_end|>", "\\n",
        "<|im_start|>", "a", "s", "s", "i", "s", "t", "an", "t", "\\n",
    ]  # fmt: skip
    seen = shown(row, chat_tokenizer)
    assert seen[-2:] == ["[Ada]", "[<|im_end|>]"]
    assert "".join(seen[:-2]) == "".join(prompt)
    assert "".join(tokens_of(row.prompt_ids, chat_tokenizer)) == "".join(prompt)


def test_a_chat_format_without_end_of_turn_gets_the_end_of_sequence(
    tokenizer: Any, tmp_path: Path
) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                    "{% if add_generation_prompt %}assistant:{% endif %}")  # fmt: skip
    row = encode_one(ask("Tom", "Ada"), tokenizer, chat_template=str(file))
    assert shown(row, tokenizer)[-3:] == [":", "[_Ada]", "[<eos>]"]


ANY_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=30
).filter(str.strip)


@settings(deadline=None)
@given(prompt=ANY_TEXT, completion=ANY_TEXT)
def test_prompt_and_completion_decode_to_what_was_written(
    prompt: str, completion: str, tokenizer: Any
) -> None:
    row = encode_one(ask(prompt, completion), tokenizer)
    seam = next(i for i, label in enumerate(row.labels) if label != -100)
    # Byte-level BPE loses nothing, so the ids spell the text, and blanks are the only change.
    written = tokenizer.decode(row.input_ids[:-1], clean_up_tokenization_spaces=False)
    assert written.replace(" ", "") == (prompt + completion).replace(" ", "")
    assert row.labels[seam:] == row.input_ids[seam:]
    # Only a token of white space on both sides may hold the end of the prompt and be learnt.
    unlearnt = tokenizer.decode(row.input_ids[:seam], clean_up_tokenization_spaces=False)
    assert prompt.rstrip(" ").startswith(unlearnt)
    assert not prompt.rstrip(" ")[len(unlearnt) :].strip()


LONG = ask("Q: Tom buys milk today\nA:", "Ada", (3, 22))  # 2 + 4 + 3 + 1 + 1 tokens


def test_the_report_counts_everything(tokenizer: Any) -> None:
    examples = [ask("Q: Tom\nA:", "Ada", (3, 6)), LONG, ask("Q: Ada\nA:", "Tom", (3, 6), row=2)]
    rows, report = encode(examples, tokenizer, section(max_length=8, overlong="drop"), "train")
    assert [row.row for row in rows] == [0, 2]
    ledger = report.ledger
    assert (len(ledger), report.rows, report.dropped, report.changed) == (3, 2, 1, 0)
    assert (ledger.total("learnt"), ledger.total("kept"), report.longest) == (4, 16, 11)
    assert ledger.end_ids() == {tokenizer.eos_token_id}
    assert str(report) == (
        "train: 2 rows, 1 dropped; 4 of 16 tokens are learnt; longest row 11 tokens"
    )


def test_a_prompt_is_shortened_inside_its_columns(tokenizer: Any) -> None:
    keys = {"max_length": 9, "overlong": "truncate_prompt"}
    rows, report = encode([LONG], tokenizer, section(**keys), "train")
    assert shown(rows[0], tokenizer) == [
        "Q", ":", "_Tom", "_buys", "\\n", "A", ":", "[_Ada]", "[<eos>]",
    ]  # fmt: skip
    assert tokens_of(rows[0].prompt_ids, tokenizer) == ["Q", ":", "_Tom", "_buys", "\\n", "A", ":"]
    assert (report.changed, report.longest) == (1, 11)


def test_a_chat_prompt_is_shortened_inside_its_columns(chat_tokenizer: Any) -> None:
    keys = {"chat_template": "tokenizer", "overlong": "truncate_prompt"}
    whole = encode_one(LONG, chat_tokenizer, **keys)
    short = encode_one(LONG, chat_tokenizer, **keys, max_length=len(whole.input_ids) - 2)
    assert len(short.input_ids) == len(whole.input_ids) - 2
    removed = chat_tokenizer.decode(whole.prompt_ids).replace(" milk today", "")
    assert chat_tokenizer.decode(short.prompt_ids) == removed
    assert short.labels[-6:] == whole.labels[-6:]


def test_a_text_is_split_so_that_every_token_is_learnt_once(bos_tokenizer: Any) -> None:
    long = text("Tom: Can you buy milk today? Ada: Yes, I will buy two bottles.")
    whole = encode_one(long, bos_tokenizer)
    keys = {"max_length": 8, "overlong": "split"}
    rows, report = encode([long, text("Ada", row=1)], bos_tokenizer, section(**keys), "train")
    learnt = [label for row in rows[:-1] for label in row.labels if label != -100]
    assert tuple(learnt) == whole.input_ids[1:]
    assert all(row.labels[0] == -100 and len(row.input_ids) <= 8 for row in rows)
    assert [row.row for row in rows] == [0] * (len(rows) - 1) + [1]
    assert report.changed == len(rows) - 1
    assert report.ledger.total("learnt") == len(learnt) + 2


@pytest.mark.parametrize(
    ("example", "keys", "message"),
    [
        (
            LONG,
            {},
            "data.max_length: 2 of 3 train rows are longer than 8 tokens; the longest is t.jsonl:2 "
            "with 11. Raise data.max_length, or set data.overlong: drop or truncate_prompt.",
        ),
        (
            text("Tom: Can you buy milk today?"),
            {},
            "data.max_length: 2 of 3 train rows are longer than 8 tokens; the longest is t.jsonl:2 "
            "with 9. Raise data.max_length, or set data.overlong: drop or split.",
        ),
        (
            ask("Q: Tom", "Ada: Yes, I will buy two bottles.", (3, 6)),
            {"overlong": "truncate_prompt"},
            "data.overlong: truncate_prompt cannot bring 2 of 3 train rows down to "
            "data.max_length: "
            "8 without touching the template or the completion; the longest is t.jsonl:2 with 14 "
            "tokens, 11 of them learnt. Raise data.max_length, or set data.overlong: drop.",
        ),
    ],
)
def test_rows_that_stay_too_long(
    example: Example, keys: dict[str, Any], message: str, tokenizer: Any
) -> None:
    short = Example(0, "Q", "Ada", ("Ada",), "Q", ()) if example.prompt else text("Ada")
    rows = [short, Example(**{**vars(example), "row": 1}), Example(**{**vars(example), "row": 2})]
    with pytest.raises(DataError) as caught:
        encode(rows, tokenizer, section(max_length=8, **keys), "train")
    accepted = " To leave them out, set data.accept: {overlong: 0.6667}."
    assert str(caught.value) == message + accepted
    keys = {**keys, "accept": {"overlong": 0.67}}
    kept, report = encode(rows, tokenizer, section(max_length=8, **keys), "train")
    assert [row.row for row in kept] == [0] and report.dropped == 2


def test_a_completion_that_the_tokenizer_drops() -> None:
    words = Tokenizer(models.WordLevel({"<eos>": 0, "ask": 1, "tell": 2}, unk_token="<eos>"))
    words.normalizer = normalizers.Replace("~", "")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    with pytest.raises(DataError, match="in 1 of 1 train rows"):
        encode([text("~")], dropping, section(), "train")
    with pytest.raises(DataError) as caught:
        encode([ask("ask", "tell"), ask("ask", "~", row=1)], dropping, section(), "train")
    assert str(caught.value) == (
        "data.columns: what is to be learnt has no tokens in 1 of 2 train rows; the first is "
        "t.jsonl:2. This tokenizer drops its characters. To leave them out, set data.accept: "
        "{no_target: 0.5}."
    )


def test_no_examples_are_no_rows(tokenizer: Any) -> None:
    rows, report = encode([], tokenizer, section(), "validation")
    assert (rows, report.rows, report.longest) == ([], 0, 0)
