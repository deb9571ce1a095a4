import re
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peftune.data.encoders import ENCODERS, Encoding
from peftune.data.examples import Example
from peftune.data.preview import preview, write_html
from peftune.data.rows import EncodedRow
from peftune.data.section import DataSection


def rows_of(tokenizer: Any, prompt: str, completion: str) -> list[EncodedRow]:
    example = Example(4, prompt, completion, (completion,), prompt, ())
    job = Encoding(tokenizer, DataSection(train="t.jsonl"), "causal")
    return [row for outcome in ENCODERS["causal"]([example], job) for row in outcome.rows]


def styled(text: Text, word: str) -> str:
    return "".join(text.plain[span.start : span.end] for span in text.spans if word in span.style)


def test_learnt_tokens_are_green_and_special_ones_shown(bos_tokenizer: Any) -> None:
    [text] = preview(
        rows_of(bos_tokenizer, "Tom:\n", "Ada buys"), bos_tokenizer, "causal", (), count=3
    )
    assert text.plain == "row 5: 7 tokens, 3 learnt (green)\n<bos>Tom:\nAda buys<eos>"
    assert styled(text, "green") == "Ada buys<eos>"
    assert styled(text, "reverse") == "<bos><eos>"


def test_characters_of_several_tokens_are_whole(tokenizer: Any) -> None:
    [text] = preview(rows_of(tokenizer, "東京 é\n", "🙂 [b] ü"), tokenizer, "causal", (), count=1)
    assert text.plain.partition("\n")[2] == "東京 é\n🙂 [b] ü<eos>"
    assert styled(text, "green") == "🙂 [b] ü<eos>"


def test_only_so_many_rows_are_shown(tokenizer: Any) -> None:
    rows = rows_of(tokenizer, "Tom:", "Ada") * 3
    assert len(preview(rows, tokenizer, "causal", (), count=2)) == 2


def test_blanks_survive_decoders_that_strip_them() -> None:
    """A Llama-style decoder takes the blank off the first word of whatever it is given."""
    words = Tokenizer(models.WordLevel({"<eos>": 0, "▁Tom": 1, "▁buys": 2, "▁milk": 3}, "<eos>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    stripping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    [text] = preview(rows_of(stripping, "Tom", "buys milk"), stripping, "causal", (), count=1)
    assert text.plain.partition("\n")[2].startswith("Tom buys milk")
    assert styled(text, "green").startswith(" buys milk")


@pytest.mark.parametrize(
    ("objective", "labels", "green", "count"),
    [
        ("seq2seq", "Ada<eos>", "Ada<eos>", "2 more learnt"),
        ("corrupted", "Ada<eos>", "Ada<eos>", "2 more learnt"),
        ("masked", "Tom buys milk", "Tom buys milkTom buys milk", "3 learnt"),
        ("label", (1,), "good", "the label is learnt"),
        ("labels", (1.0, 1.0), "bad, good", "the label is learnt"),
        ("labels", (0.0, 0.0), "none", "the label is learnt"),
        ("value", (1.5,), "1.5", "the label is learnt"),
        ("tags", (1, -100, 0), "Tom milkgood bad", "the tags of 2 words"),
        ("span", (1, 2), " buys milk", "the answer's first and last"),
    ],
)
def test_what_is_learnt_by_each_objective(
    objective: Any, labels: Any, green: str, count: str, tokenizer: Any
) -> None:
    ids = tuple(tokenizer("Tom buys milk")["input_ids"])
    labels = tuple(tokenizer(labels)["input_ids"]) if isinstance(labels, str) else labels
    row = EncodedRow(ids, labels, (), 0)
    [text] = preview([row], tokenizer, objective, ("bad", "good"), count=1)
    assert text.plain.startswith(f"row 1: 3 tokens, {count}")
    assert "Tom buys milk" in text.plain
    assert styled(text, "green") == green


def test_a_page_that_needs_no_other_file(tokenizer: Any, tmp_path: Path) -> None:
    texts = preview(rows_of(tokenizer, "Tom:\n", "Ada <b>"), tokenizer, "causal", (), count=1)
    write_html(texts, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Ada &lt;b&gt;" in page and "color: " in page
    assert not re.search(r"(src|href)=", page)
