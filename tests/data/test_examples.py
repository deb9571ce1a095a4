from typing import Any

import pytest

from peftune.data.examples import Example, Reading, require_columns
from peftune.data.section import DataSection
from peftune.errors import DataError
from tests.data.in_memory import in_memory
from tests.data.loading import read_examples

PROMPT = ("prompt", "completion")
TEXT = ("text",)


def read(
    rows: list[dict[str, Any]],
    roles: tuple[str, ...] = PROMPT,
    default: str | None = None,
    **keys: Any,
) -> list[Example]:
    table = in_memory("data.train", "t.jsonl", rows)
    return read_examples(table, DataSection(train="t.jsonl", **keys), roles, default)


def refusal(rows: list[dict[str, Any]], roles: tuple[str, ...] = PROMPT, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(rows, roles, **keys)
    return str(caught.value).partition(" To leave them out, set data.accept: {invalid: ")[0]


def test_a_row_with_the_roles_own_names() -> None:
    assert read([{"prompt": "Say hi", "completion": "hi", "id": 3}]) == [
        Example(0, "Say hi", "hi", ("hi",), "Say hi", ((0, 6),))
    ]


def test_columns_template_and_references() -> None:
    [example] = read(
        [{"d": "A: hello", "n": 2, "s": "greets", "all": ["greets", "says hello"]}],
        columns={"completion": "s", "references": "all"},
        prompt_template="Dialogue {n}:\n{d}\nSummary:",
    )
    assert example == Example(
        row=0,
        prompt="Dialogue 2:\nA: hello\nSummary:",
        completion="greets",
        references=("greets", "says hello"),
        source="2\nA: hello",
        fields=((9, 10), (12, 20)),
    )


def test_the_task_s_template_speaks_of_roles() -> None:
    [example] = read(
        [{"dialogue": "A: hello", "summary": "greets"}],
        default="{prompt}\n\nSummary:",
        columns={"prompt": "dialogue", "completion": "summary"},
    )
    assert example.prompt == "A: hello\n\nSummary:"
    assert example.fields == ((0, 8),)


def test_rows_without_references_stand_for_themselves() -> None:
    rows = [
        {"prompt": "a", "completion": "b", "references": None},
        {"prompt": "c", "completion": "d"},
    ]
    assert [example.references for example in read(rows)] == [("b",), ("d",)]


def test_plain_text() -> None:
    assert read([{"body": " Once. "}], TEXT, columns={"text": "body"}) == [
        Example(0, "", " Once. ", (" Once. ",), " Once. ", ())
    ]


GOOD = {"prompt": "p", "completion": "c"}


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            [{"dialogue": "d", "summary": "s"}],
            {"columns": {"prompt": "dialogue", "completion": "sumary"}},
            "data.columns: completion: no column named 'sumary' in data.train. Did you mean "
            "summary? The columns are: dialogue, summary.",
        ),
        (
            [{"dialogue": "d", "completion": "s"}],
            {},
            "data.columns: prompt: no column named 'prompt' in data.train. The columns are: "
            "dialogue, completion.",
        ),
        (
            [{"dialogue": "d", "completion": "s"}],
            {"prompt_template": "{dialog}"},
            "data.prompt_template: no column named 'dialog' in data.train. Did you mean dialogue? "
            "The columns are: dialogue, completion.",
        ),
        (
            [GOOD, {"prompt": "p"}, {"prompt": "q"}],
            {},
            "data.columns: completion: column 'completion' is missing in 2 of 3 rows; the first is "
            "t.jsonl:2.",
        ),
        (
            [GOOD, {"prompt": "p", "completion": 7}],
            {},
            "data.columns: completion: column 'completion' is a number, not text, in 1 of 2 rows; "
            "the first is t.jsonl:2.",
        ),
        (
            [{"prompt": "p", "completion": ["c"]}, {"prompt": "p", "completion": ""}],
            {},
            "data.columns: completion: column 'completion' is a list, not text, in 1 of 2 rows; "
            "the first is t.jsonl:1.",
        ),
        (
            [{"prompt": "p", "completion": None}],
            {},
            "data.columns: completion: column 'completion' is null, not text, in 1 of 1 rows; the "
            "first is t.jsonl:1.",
        ),
        (
            [GOOD, {"prompt": "p", "completion": ""}, {"prompt": "p", "completion": " \n"}],
            {},
            "data.columns: completion: column 'completion' is blank in 2 of 3 rows; the first is "
            "t.jsonl:2.",
        ),
        (
            [{"prompt": [{"role": "user"}], "completion": "c"}],
            {},
            "data.columns: prompt: column 'prompt' is a list, not text, in 1 of 1 rows; the first "
            "is t.jsonl:1.",
        ),
        (
            [{"prompt": True, "completion": "c"}],
            {},
            "data.columns: prompt: column 'prompt' is true or false, not text, in 1 of 1 rows; the "
            "first is t.jsonl:1.",
        ),
        (
            [GOOD, {"prompt": float("nan"), "completion": "c"}],
            {},
            "data.columns: prompt: column 'prompt' is nan, not text, in 1 of 2 rows; the first is "
            "t.jsonl:2.",
        ),
        ([{}, {}], {}, "data.train: the rows of t.jsonl have no columns."),
        (
            [GOOD, {"prompt": " ", "completion": "c"}],
            {"prompt_template": "Q: {prompt}"},
            "data.train: the prompt has no content in 1 of 2 rows; the first is t.jsonl:2.",
        ),
        (
            [{**GOOD, "references": "r"}],
            {},
            "data.columns: references: column 'references' is a text, not a list of texts, in 1 of "
            "1 rows; the first is t.jsonl:1.",
        ),
        (
            [{**GOOD, "references": []}, {**GOOD, "references": ["a", 1]}],
            {},
            "data.columns: references: column 'references' is not a list of texts that are not "
            "blank in 2 of 2 rows; the first is t.jsonl:1.",
        ),
        (
            [GOOD, {**GOOD, "references": ["a", " "]}],
            {},
            "data.columns: references: column 'references' is not a list of texts that are not "
            "blank in 1 of 2 rows; the first is t.jsonl:2.",
        ),
        (
            [{**GOOD, "references": ["a", "\udc00"]}],
            {},
            "data.columns: references: column 'references' holds half a surrogate pair (\\ud800 to "
            "\\udfff) in 1 of 1 rows; the first is t.jsonl:1.",
        ),
        (
            [{"prompt": "\ud83d", "completion": "c"}],
            {},
            "data.columns: prompt: column 'prompt' holds half a surrogate pair (\\ud800 to "
            "\\udfff) in 1 of 1 rows; the first is t.jsonl:1.",
        ),
        (
            [{"prompt": "p", "completion": "\ud83d"}],
            {},
            "data.columns: completion: column 'completion' holds half a surrogate pair (\\ud800 to "
            "\\udfff) in 1 of 1 rows; the first is t.jsonl:1.",
        ),
    ],
)
def test_wrong_rows_are_counted_and_the_first_is_named(
    rows: list[dict[str, Any]], keys: dict[str, Any], message: str
) -> None:
    assert refusal(rows, **keys) == message


def test_wrong_text_rows() -> None:
    assert refusal([{"text": "a"}, {"text": "\t"}], TEXT) == (
        "data.columns: text: column 'text' is blank in 1 of 2 rows; the first is t.jsonl:2."
    )


def test_a_split_of_a_hub_data_set_is_named_by_its_place() -> None:
    table = in_memory("data.path", "me/set (test)", [{"a": "x"}])
    with pytest.raises(DataError) as caught:
        require_columns(table, Reading(DataSection(path="me/set"), TEXT, None))
    assert str(caught.value) == (
        "data.columns: text: no column named 'text' in me/set (test). The columns are: a."
    )
