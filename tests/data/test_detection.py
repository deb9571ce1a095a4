"""Which format is found for which columns, and what is said where that is unclear."""

from pathlib import Path
from typing import Any

import pytest

from peftune.data.detection import Choice, fitted, formatted, languages_chosen
from peftune.data.formats import CHAT, LABEL, PROMPT, SPANS, TAG, TEXT, Conversion, Roles
from peftune.data.languages import forced_first_token, set_languages
from peftune.data.section import DataSection
from peftune.data.sources import open_splits, read_tables
from peftune.data.table import Table
from peftune.errors import DataError
from tests.data.in_memory import in_memory
from tests.data.loading import load_splits


def detected(there: str, roles: Roles, **keys: Any) -> Table:
    """A table of one row with these columns, formatted as the recipe's keys say."""
    row = {column: "text" for column in there.split()}
    section = DataSection(train="t.jsonl", **keys)
    table = in_memory("data.train", "t.jsonl", [row])
    return formatted(table, Choice("data", section, section.format, section.columns, roles))


def refusal(there: str, roles: Roles, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        detected(there, roles, **keys)
    return str(caught.value)


GERMAN = {"source_language": "en", "target_language": "de"}


@pytest.mark.parametrize(
    ("columns", "roles", "keys", "format"),
    [
        ("messages tools id", CHAT, {}, "messages"),
        ("messages", PROMPT, {}, "messages"),
        ("prompt completion id", PROMPT, {}, "prompt_completion"),
        ("prompt completion", CHAT, {}, "prompt_completion"),
        # A text column beside the instruction, as Stanford Alpaca has it, is for task text.
        ("instruction input output text", PROMPT, {}, "alpaca"),
        ("instruction output", CHAT, {}, "alpaca"),
        ("conversations system", CHAT, {}, "sharegpt"),
        ("conversation", PROMPT, {}, "sharegpt"),
        ("id title context question answers", SPANS, {}, "squad"),
        ("context question answer answer_start", PROMPT, {}, "squad"),
        ("sentence label idx", LABEL, {}, "classification"),
        ("premise hypothesis label", LABEL, {}, "classification"),
        ("text labels", LABEL, {}, "classification"),
        ("tokens ner_tags pos_tags", TAG, {}, "token_classification"),
        ("en de", PROMPT, GERMAN, "parallel"),
        ("eng_Latn deu_Latn id", PROMPT, GERMAN, "parallel"),
        (
            "en de",
            PROMPT,
            {"source_language": "eng_Latn", "target_language": "deu_Latn"},
            "parallel",
        ),
        ("en de", PROMPT, {"source_language": "en_XX", "target_language": "de_DE"}, "parallel"),
        # A template stands for the prompt column.
        ("dialogue completion", PROMPT, {"prompt_template": "{dialogue}"}, "prompt_completion"),
        # What the recipe says comes first.
        (
            "messages q a",
            PROMPT,
            {"columns": {"prompt": "q", "completion": "a"}},
            "prompt_completion",
        ),
        ("messages prompt completion", PROMPT, {"format": "messages"}, "messages"),
        ("talk", CHAT, {"columns": {"messages": "talk"}}, "messages"),
        # Codes of languages do not change what the columns are.
        ("prompt completion", PROMPT, GERMAN, "prompt_completion"),
    ],
)
def test_formats_by_their_columns(
    columns: str, roles: Roles, keys: dict[str, Any], format: str
) -> None:
    convert = detected(columns, roles, **keys).convert
    assert isinstance(convert, Conversion)
    assert convert.format == format


@pytest.mark.parametrize(
    ("columns", "roles", "keys"),
    [
        ("text source", TEXT, {}),
        ("text label labels value", LABEL, {}),
        ("text tags words labels", TAG, {}),
        ("body kind", LABEL, {"columns": {"text": "body", "label": "kind"}}),
    ],
)
def test_rows_in_the_tasks_own_roles_stay_as_they_are(
    columns: str, roles: Roles, keys: dict[str, Any]
) -> None:
    assert detected(columns, roles, **keys).convert is None


@pytest.mark.parametrize(
    ("columns", "roles", "keys", "message"),
    [
        (
            "id dialogue summary",
            PROMPT,
            {},
            "data.columns: t.jsonl has the columns id, dialogue, summary, and this task needs prompt "
            "and completion, or a format that has them (messages, prompt_completion, alpaca, "
            "sharegpt, squad, parallel). Say which column is which: data.columns: {prompt: COLUMN, "
            "completion: COLUMN}, or write the prompt with data.prompt_template.",
        ),
        (
            "body",
            TEXT,
            {},
            "data.columns: t.jsonl has the columns body, and this task needs text, or a format that "
            "has them (text). Say which column is which: data.columns: {text: COLUMN}.",
        ),
        (
            "prompt completion messages",
            PROMPT,
            {},
            "data.format: the columns of t.jsonl (prompt, completion, messages) fit messages and "
            "prompt_completion; set data.format to one of them, or say in data.columns which column "
            "is which.",
        ),
        (
            "messages conversations",
            CHAT,
            {},
            "data.format: the columns of t.jsonl (messages, conversations) fit messages and "
            "sharegpt; set data.format to one of them, or say in data.columns which column is which.",
        ),
        (
            "sentence premise hypothesis label",
            LABEL,
            {},
            "data.columns: t.jsonl has sentence and premise with hypothesis; say which one is meant, "
            "e.g. data.columns: {text: sentence}.",
        ),
        (
            "tokens ner_tags labels",
            TAG,
            {},
            "data.columns: t.jsonl has ner_tags and labels; say which one is meant, e.g. "
            "data.columns: {tags: ner_tags}.",
        ),
        (
            "messages",
            TEXT,
            {"format": "messages"},
            "data.format: messages rows have no text, which this task needs. Formats for it are: text.",
        ),
        (
            "instruction answer",
            PROMPT,
            {"format": "alpaca"},
            "data.format: alpaca needs instruction, output; the columns of t.jsonl are: instruction, "
            "answer.",
        ),
        (
            "en de",
            PROMPT,
            {},
            "data.source_language: t.jsonl has texts in en and de; set it to one of them (for a model "
            "with language codes: to the code), or map prompt and completion in data.columns.",
        ),
        (
            "en de",
            PROMPT,
            {"source_language": "en", "target_language": "fr"},
            "data.target_language: 'fr': t.jsonl has texts in en and de.",
        ),
        (
            "en de",
            PROMPT,
            {"source_language": "en", "target_language": "eng_Latn"},
            "data.target_language: 'en' is the source's language too.",
        ),
        (
            "a b",
            PROMPT,
            {"format": "parallel"},
            "data.format: parallel needs columns named like languages; the columns of t.jsonl are: "
            "a, b.",
        ),
    ],
)
def test_columns_that_leave_it_open_what_they_mean(
    columns: str, roles: Roles, keys: dict[str, Any], message: str
) -> None:
    assert refusal(columns, roles, **keys) == message


def test_a_pair_of_texts_is_judged_together(write_rows: Any) -> None:
    pairs = [{"premise": "a", "hypothesis": f"b{n}", "label": "yes"} for n in range(2)]
    write_rows("t.jsonl", *pairs)
    example = load_splits(DataSection(train="t.jsonl"), LABEL, "{text}", seed=0)["train"][1]
    assert (example.prompt, example.pair, example.label) == ("a", "b1", "yes")


def test_squad_rows_bring_their_prompt_and_the_recipe_s_own_replaces_it(write_rows: Any) -> None:
    answers = {"text": ["Ada", "she"], "answer_start": [0, 0]}
    write_rows("t.jsonl", {"context": "Ada sat.", "question": "Who?", "answers": answers})
    [example] = load_splits(DataSection(train="t.jsonl"), PROMPT, None, seed=0)["train"]
    assert example.prompt == "Context: Ada sat.\n\nQuestion: Who?\n\nAnswer:"
    assert (example.completion, example.references) == ("Ada", ("Ada", "she"))
    section = DataSection(train="t.jsonl", prompt_template="{question} {context}")
    [example] = load_splits(section, PROMPT, None, seed=0)["train"]
    assert example.prompt == "Who? Ada sat."


def test_nested_translations(write_rows: Any) -> None:
    write_rows("t.jsonl", {"translation": {"de": "Hallo", "en": "Hello"}})
    section = DataSection(train="t.jsonl", **GERMAN)
    [example] = load_splits(section, PROMPT, None, seed=0)["train"]
    assert (example.prompt, example.completion) == ("Hello", "Hallo")


def test_languages_that_choose_texts_need_no_codes_in_the_model(
    tokenizer: Any, write_rows: Any
) -> None:
    write_rows("pairs.jsonl", {"de": "Hallo", "en": "Hello"})
    write_rows("plain.jsonl", {"prompt": "Hallo", "completion": "Hello"})
    for source, chosen in (
        ({"train": "pairs.jsonl"}, True),
        ({"mixture": [{"train": "pairs.jsonl"}, {"train": "plain.jsonl"}]}, True),
        ({"train": "plain.jsonl"}, False),
    ):
        section = DataSection(**source, **GERMAN)
        tables = open_splits(section, PROMPT, None, seed=0)
        assert languages_chosen(tables.values()) is chosen
        assert forced_first_token(tokenizer, section) is None
        if chosen:
            set_languages(tokenizer, section, choose_texts=True)
            continue
        with pytest.raises(DataError) as caught:
            set_languages(tokenizer, section, choose_texts=False)
        assert str(caught.value) == (
            "data.source_language: 'en', but this model's tokenizer has no language codes; remove it "
            "and name the languages in data.prompt_template."
        )


def test_a_section_that_fits_its_rows() -> None:
    table = detected("context question answers", PROMPT)
    section = DataSection(train="t.jsonl")
    assert fitted(section, table, PROMPT).prompt_template == table.prompt_template
    own = DataSection(train="t.jsonl", prompt_template="{question}")
    assert fitted(own, table, PROMPT).prompt_template == "{question}"


SHARED: list[tuple[str, Roles, str | None]] = [
    ("chat_instruct", CHAT, "messages"),
    ("chat_multiturn_sgd", CHAT, "messages"),
    ("classification_agnews", LABEL, None),
    ("classification_banking77", LABEL, None),
    ("classification_sst2", LABEL, None),
    ("qa_wiki", PROMPT, "squad"),
    ("qa_wiki", SPANS, "squad"),
    ("qa_squad_en", SPANS, "squad"),
    ("text_books", TEXT, None),
    ("text_mixed", TEXT, None),
    ("text_tinystories", TEXT, None),
    ("translation_multi30k", PROMPT, "parallel"),
    ("translation_tatoeba", PROMPT, "parallel"),
]


@pytest.mark.parametrize(("name", "roles", "format"), SHARED)
def test_real_data(name: str, roles: Roles, format: str | None, shared_folder: Path) -> None:
    keys: dict[str, Any] = GERMAN if format == "parallel" else {}
    if name == "qa_squad_en":
        keys = {"splits": {"train": "test[:50%]", "test": "test[50%:]"}}
    section = DataSection(path=str(shared_folder / "data" / name), **keys)
    for table in read_tables(section, roles, seed=0).values():
        convert = table.convert
        assert (convert.format if isinstance(convert, Conversion) else None) == format
        for _, row in table.limited(200):
            assert all(role in row for role in roles if format != "squad" or role != "prompt")


@pytest.mark.parametrize(
    ("name", "columns", "keys"),
    [
        (
            "summarization_dialogsum",
            "id, dialogue, summary, topic",
            {"prompt": "dialogue", "completion": "summary"},
        ),
        (
            "summarization_scitldr",
            "id, title, document, summary, references",
            {"prompt": "document", "completion": "summary"},
        ),
        ("qa_gsm8k", "question, answer, final", {"prompt": "question", "completion": "answer"}),
        ("data2text_e2e", "mr, text", {"prompt": "mr", "completion": "text"}),
    ],
)
def test_real_data_that_has_to_be_described(
    name: str, columns: str, keys: dict[str, str], shared_folder: Path
) -> None:
    path = str(shared_folder / "data" / name)
    with pytest.raises(DataError) as caught:
        open_splits(DataSection(path=path), PROMPT, None, seed=0)
    assert f"has the columns {columns}, and this task needs prompt and completion" in str(
        caught.value
    )
    tables = open_splits(DataSection(path=path, columns=keys), PROMPT, None, seed=0)
    assert set(tables) == {"train", "validation", "test"}
