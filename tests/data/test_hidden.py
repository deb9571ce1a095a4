"""Plain text for models that find out hidden parts: what may be hidden, and windows."""

from typing import Any

import pytest

from peftune.data.encoders import Encoding
from peftune.data.encoders.hidden import encode
from peftune.data.examples import Example
from peftune.data.rows import Outcome
from peftune.data.section import DataSection

LONG = "Tom: Can you buy milk today? Ada: Yes, I will buy two bottles."


def outcome(text: str, tokenizer: Any, closing_id: int | None = None, **keys: Any) -> Outcome:
    section = DataSection(train="t.jsonl", **keys)
    job = Encoding(tokenizer, section, "masked", closing_id=closing_id)
    [found] = encode([Example(3, "", text, (text,), text, ())], job)
    return found


def test_what_the_tokenizer_adds_is_never_hidden(bos_eos_tokenizer: Any) -> None:
    found = outcome("Tom: milk", bos_eos_tokenizer)
    [row] = found.rows
    tokens = bos_eos_tokenizer.convert_ids_to_tokens(list(row.input_ids))
    assert (tokens[0], tokens[-1]) == ("<bos>", "<eos>")
    assert row.labels == (-100, *row.input_ids[1:-1], -100)
    assert (found.targets, found.tokens, found.kept) == (3, 5, 5)


def test_a_text_is_ended_once(tokenizer: Any, bos_eos_tokenizer: Any) -> None:
    for tried in (tokenizer, bos_eos_tokenizer):
        [row] = outcome("Tom", tried, tried.eos_token_id).rows
        assert row.input_ids.count(tried.eos_token_id) == 1
        assert row.labels[-2:] == (row.input_ids[-2], -100)


def test_windows_have_every_token_once_and_the_tokenizer_s_own_each(bos_eos_tokenizer: Any) -> None:
    [whole] = outcome(LONG, bos_eos_tokenizer).rows
    found = outcome(LONG, bos_eos_tokenizer, max_length=8, overlong="split")
    assert found.changed and len(found.rows) > 2
    parts = [row.input_ids for row in found.rows]
    assert all(len(part) <= 8 and part[0] == whole.input_ids[0] for part in parts)
    assert tuple(t for part in parts for t in part[1:-1]) == whole.input_ids[1:-1]
    assert {row.row for row in found.rows} == {3}


@pytest.mark.parametrize(("policy", "fault"), [("error", "overlong"), ("drop", None)])
def test_longer_rows_go_as_the_policy_says(
    policy: str, fault: str | None, bos_eos_tokenizer: Any
) -> None:
    found = outcome(LONG, bos_eos_tokenizer, max_length=8, overlong=policy)
    assert (found.rows, found.fault, found.changed) == ((), fault, True)
