"""Every kind of bad data is answered by one line, before anything is trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from peftune.cli import report_errors, train_recipe
from tests.conftest import (
    CHAT_TEMPLATE,
    asked_rows,
    conversations,
    labelled_rows,
    sentence_pairs,
    tagged_rows,
    write_recipe,
)

PAIR = {"columns": {"prompt": "dialogue", "completion": "summary"}}
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.role }}: {{ m.content }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """Files with bad data, the `data:` section that names them, and the answer."""

    name: str
    message: str
    """Beginning of the line after `error: `."""
    files: dict[str, Any]
    """Name to rows, each an object or the text of a line; or to bytes."""
    data: dict[str, Any] = field(default_factory=dict)
    task: str = "summarize"
    model: str = "llama"


def pairs(*extra: Any, count: int = 6) -> list[Any]:
    return [*sentence_pairs(count), *extra]


def talk(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


GOOD_TALK = conversations(4)
ASKED = {"context": "Mia saw Rome.", "question": "What was seen?"}
CASES = [
    Case(
        "half a line",
        "data.path: d/train.jsonl:7: malformed JSON: Unterminated string starting at (character 14). Each line is one object.",
        {"train.jsonl": pairs('{"dialogue": "Mia')},
        PAIR,
    ),
    Case(
        "not UTF-8",
        "data.path: d/train.jsonl:1: not UTF-8 text (byte 17); save it as UTF-8.",
        {"train.jsonl": b'{"dialogue": "caf\xe9", "summary": "x"}\n'},
        PAIR,
    ),
    Case(
        "a line that is a list",
        "data.path: d/train.jsonl:7: a line must be a JSON object, this one is a list.",
        {"train.jsonl": pairs("[1, 2]")},
        PAIR,
    ),
    Case(
        "a number that is none",
        "data.columns: completion: column 'summary' is a number, not text, in 1 of 7 rows; the first is d/train.jsonl:7. To leave them out, set data.accept: {invalid: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": "a", "summary": float("nan")})},
        PAIR,
    ),
    Case(
        "an unquoted comma",
        "data.path: d/train.csv:3: 3 values under 2 column names. A value that contains a comma needs double quotes.",
        {"train.csv": b"dialogue,summary\na,b\nc,d,e\n"},
        PAIR,
    ),
    Case(
        "a column twice",
        "data.path: d/train.csv: two columns are named 'dialogue'.",
        {"train.csv": b"dialogue,dialogue\na,b\n"},
        PAIR,
    ),
    Case("an empty file", "data.path: d/train.jsonl holds no rows.", {"train.jsonl": b""}, PAIR),
    Case(
        "not a Parquet file",
        "data.path: d/train.parquet: not a readable Parquet file: Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes).",
        {"train.parquet": b"PAR2"},
        PAIR,
    ),
    Case(
        "no such kind of file",
        "data.path: 'd' has no split named train. The folder d holds: train.xlsx. A split is a file such as train.jsonl (or .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt) or a folder of such files.",
        {"train.xlsx": b"?"},
        PAIR,
    ),
    Case(
        "a column misspelt",
        "data.columns: completion: no column named 'sumary' in d/train.jsonl. Did you mean summary? The columns are: dialogue, summary.",
        {"train.jsonl": pairs()},
        {"columns": {"prompt": "dialogue", "completion": "sumary"}},
    ),
    Case(
        "a role misspelt",
        "data.columns: unknown role 'complete'. Did you mean completion? The roles of this task are: prompt, completion, references.",
        {"train.jsonl": pairs()},
        {"columns": {"prompt": "dialogue", "complete": "summary"}},
    ),
    Case(
        "columns that say nothing",
        "data.columns: d/train.jsonl has the columns a, b, and this task needs prompt and completion, or a format that has them (messages, prompt_completion, alpaca, sharegpt, squad, parallel). Say which column is which: data.columns: {prompt: COLUMN, completion: COLUMN}, or write the prompt with data.prompt_template.",
        {"train.jsonl": [{"a": "x", "b": "y"}] * 2},
    ),
    Case(
        "two formats at once",
        "data.format: the columns of d/train.jsonl (prompt, completion, instruction, output) fit prompt_completion and alpaca; set data.format to one of them, or say in data.columns which column is which.",
        {"train.jsonl": [{"prompt": "a", "completion": "b", "instruction": "c", "output": "d"}]},
        {},
        "instruct",
    ),
    Case(
        "a format that the columns do not have",
        "data.format: alpaca needs instruction, output; the columns of d/train.jsonl are: dialogue, summary.",
        {"train.jsonl": pairs()},
        {"format": "alpaca"},
        "instruct",
    ),
    Case(
        "preference data",
        "data.path: d/train.jsonl has columns chosen and rejected; preference data is out of scope. To learn the chosen answers, set data.columns: {completion: chosen}.",
        {"train.jsonl": [{"prompt": "a", "chosen": "b", "rejected": "c"}]},
        {},
        "instruct",
    ),
    Case(
        "a blank completion",
        "data.columns: completion: column 'summary' is blank in 1 of 7 rows; the first is d/train.jsonl:7. To leave them out, set data.accept: {invalid: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": "a", "summary": " "})},
        PAIR,
    ),
    Case(
        "no completion",
        "data.columns: completion: column 'summary' is null, not text, in 1 of 7 rows; the first is d/train.jsonl:7. To leave them out, set data.accept: {invalid: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": "a", "summary": None})},
        PAIR,
    ),
    Case(
        "half a character",
        "data.columns: completion: column 'summary' holds half a surrogate pair (\\ud800 to \\udfff) in 1 of 7 rows; the first is d/train.jsonl:7. To leave them out, set data.accept: {invalid: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": "a", "summary": "\ud83d"})},
        PAIR,
    ),
    Case(
        "a blank prompt",
        "data.path: the prompt has no content in 1 of 7 rows; the first is d/train.jsonl:7. To leave them out, set data.accept: {invalid: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": " ", "summary": "b"})},
        PAIR,
    ),
    Case(
        "references that are no list",
        "data.columns: references: column 'references' is a text, not a list of texts, in 1 of 1 rows; the first is d/test.jsonl:1.",
        {
            "train.jsonl": pairs(),
            "test.jsonl": [{"dialogue": "a", "summary": "b", "references": "b"}],
        },
        PAIR,
    ),
    Case(
        "a row over the limit",
        "data.max_length: 1 of 7 train rows are longer than 96 tokens; the longest is d/train.jsonl:7 with 374. Raise data.max_length, or set data.overlong: drop or truncate_prompt. To leave them out, set data.accept: {overlong: 0.1429}.",
        {"train.jsonl": pairs({"dialogue": "Mia: no. " * 60, "summary": "b"})},
        {**PAIR, "max_length": 96},
    ),
    Case(
        "every row over the limit",
        "data.overlong: drop removed all 6 train rows; each is longer than data.max_length: 8.",
        {"train.jsonl": pairs()},
        {**PAIR, "max_length": 8, "overlong": "drop"},
    ),
    Case(
        "a training row twice",
        "data.path: 1 of 7 train rows repeat an earlier one; the first is d/train.jsonl:7, the same as d/train.jsonl:2. Remove them. To go on with them, set data.accept: {duplicates: 0.1429}.",
        {"train.jsonl": pairs(sentence_pairs(2)[1])},
        PAIR,
    ),
    Case(
        "a test row in the training rows",
        "data.path: 1 of 2 test rows are also trained on (1 letter for letter); the first is d/test.jsonl:1, the same as d/train.jsonl:6. Remove them from one of the two. To go on with them, set data.accept: {overlap: 0.5}.",
        {"train.jsonl": pairs(), "test.jsonl": sentence_pairs(2, 5)},
        PAIR,
    ),
    Case(
        "a validation row that differs in case",
        "data.path: 1 of 1 validation rows are also trained on (0 letter for letter); the first is d/validation.jsonl:1, the same as d/train.jsonl:1. Remove them from one of the two.",
        {
            "train.jsonl": pairs(),
            "validation.jsonl": [
                {"dialogue": sentence_pairs(1)[0]["dialogue"].upper(), "summary": "b"}
            ],
        },
        PAIR,
    ),
    Case(
        "two validation splits",
        "data.validation_fraction: 0.2 of the training rows, but there is a validation split already (d/validation.jsonl); remove the key.",
        {"train.jsonl": pairs(), "validation.jsonl": sentence_pairs(2, 9)},
        {**PAIR, "validation_fraction": 0.2},
    ),
    Case(
        "a mapping to no column beside a column of the role's own name",
        "data.columns: completion: no column named 'sumary' in d/train.jsonl. Did you mean summary? The columns are: completion, dialogue, summary.",
        {"train.jsonl": [{"completion": "not this", **row} for row in pairs()]},
        {"columns": {"prompt": "dialogue", "completion": "sumary"}},
    ),
    Case(
        "nothing left to train on",
        "data.validation_fraction: 0.5 of 1 rows leaves no row to train on.",
        {"train.jsonl": sentence_pairs(1)},
        {**PAIR, "validation_fraction": 0.5},
    ),
    Case(
        "a split that is not there",
        "data.splits: test: 'd' has no split named 'dev'. The folder d holds: train.jsonl.",
        {"train.jsonl": pairs()},
        {**PAIR, "splits": {"test": "dev"}},
    ),
    Case(
        "a slice misspelt",
        "data.splits: train: 'train[:ten]' is not the name of a split, with a slice or without, like train, train[:90%] or test[100:600].",
        {"train.jsonl": pairs()},
        {**PAIR, "splits": {"train": "train[:ten]"}},
    ),
    Case(
        "slices that overlap",
        "data.path: 1 of 3 test rows are also trained on (1 letter for letter); the first is d/train.jsonl:4, the same as d/train.jsonl:4. Remove them from one of the two. To go on with them, set data.accept: {overlap: 0.3334}.",
        {"train.jsonl": pairs()},
        {**PAIR, "splits": {"train": "train[:4]", "test": "train[3:]"}},
    ),
    Case(
        "a blank text",
        "data.columns: text: column 'text' is blank in 1 of 2 rows; the first is d/train.jsonl:2. To leave them out, set data.accept: {invalid: 0.5}.",
        {"train.jsonl": [{"text": "a b"}, {"text": "\n"}]},
        {},
        "text",
    ),
    Case(
        "a language that the model does not have",
        "data.target_language: 'deu_Latn', but this model's tokenizer has no language codes; remove it and name the languages in data.prompt_template.",
        {"train.jsonl": pairs()},
        {**PAIR, "target_language": "deu_Latn"},
        "translate",
        "t5",
    ),
    Case(
        "a label that is not trained",
        "data.columns: label: test rows are labelled 'fine', and no training row has it. The labels are: bad, good, odd.",
        {
            "train.jsonl": labelled_rows(6, 0),
            "test.jsonl": [{"text": "On day 9 it was fine.", "label": "fine"}],
        },
        {},
        "classify",
        "bert",
    ),
    Case(
        "one label for all",
        "data.columns: label: every training row is labelled 'good'.",
        {"train.jsonl": [{"text": f"tea {i}", "label": "good"} for i in range(3)]},
        {},
        "classify",
        "bert",
    ),
    Case(
        "labels of two kinds",
        "data.columns: label: the training rows hold labels of different kinds (multi_label_classification, single_label_classification). Make them alike, or set data.problem_type.",
        {"train.jsonl": [{"text": "a", "label": "good"}, {"text": "b", "label": ["bad"]}]},
        {},
        "classify",
        "bert",
    ),
    Case(
        "a value that is no number",
        "data.columns: label: 'much' is not a number (d/train.jsonl:2, train).",
        {"train.jsonl": [{"text": "a", "label": 0.5}, {"text": "b", "label": "much"}]},
        {"problem_type": "regression"},
        "classify",
        "bert",
    ),
    Case(
        "no label",
        "data.columns: label: column 'label' is null, not a label, in 1 of 4 rows; the first is d/train.jsonl:4. To leave them out, set data.accept: {invalid: 0.25}.",
        {"train.jsonl": [*labelled_rows(3, 0), {"text": "a", "label": None}]},
        {},
        "classify",
        "bert",
    ),
    Case(
        "fewer tags than words",
        "data.columns: tags: column 'tags' does not hold as many tags as column 'words' has words in 1 of 4 rows; the first is d/train.jsonl:4. To leave them out, set data.accept: {invalid: 0.25}.",
        {"train.jsonl": [*tagged_rows(3, 0), {"words": ["a", "b"], "tags": ["O"]}]},
        {},
        "tag",
        "bert",
    ),
    Case(
        "numbers as tags without names",
        "data.columns: tags: column 'tags' holds numbers (name the tags in data.labels in the order of their ids) in every row; the first is d/train.jsonl:1.",
        {"train.jsonl": [{"words": ["a"], "tags": [0]}, {"words": ["b"], "tags": [1]}]},
        {},
        "tag",
        "bert",
    ),
    Case(
        "an answer that stands elsewhere",
        "data.columns: answers: in 1 of 4 train rows the answer does not stand at its answer_start in the context, counted in characters from 0; the first is d/train.jsonl:4. Correct these rows, or remove them. To leave them out, set data.accept: {misplaced_answer: 0.25}.",
        {
            "train.jsonl": [
                *asked_rows(3, 0),
                {**ASKED, "answers": [{"text": "Rome", "answer_start": 2}]},
            ]
        },
        {},
        "extract",
        "bert",
    ),
    Case(
        "an answer without a place",
        "data.columns: answers: column 'answers' has an answer without answer_start (a whole number from 0) in 1 of 4 rows; the first is d/train.jsonl:4. To leave them out, set data.accept: {invalid: 0.25}.",
        {"train.jsonl": [*asked_rows(3, 0), {**ASKED, "answers": ["Rome"]}]},
        {},
        "extract",
        "bert",
    ),
    Case(
        "a question that fills the window",
        "data.max_length: in 1 of 4 train rows the question leaves windows of 96 tokens no room for a context and data.doc_stride: 16; the first is d/train.jsonl:4. Raise data.max_length, or lower data.doc_stride. To leave them out, set data.accept: {long_question: 0.25}.",
        {
            "train.jsonl": [
                *asked_rows(3, 0),
                {**ASKED, "question": "And what did Mia see? " * 6, "answers": []},
            ]
        },
        {"max_length": 96, "doc_stride": 16},
        "extract",
        "bert",
    ),
    Case(
        "an unknown speaker",
        "data.path: column 'messages' holds a message of an unknown role 'narrator' (known are user, human, assistant, gpt, chatgpt, bing, bard, model, system, developer, tool, function, observation) in 1 of 5 rows; the first is d/train.jsonl:5. To leave them out, set data.accept: {invalid: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, talk(("narrator", "a"), ("assistant", "b"))]},
        {},
        "chat",
    ),
    Case(
        "a question without an answer",
        "data.columns: messages: column 'messages' holds no conversation, as the last message is the user's, not the assistant's, in 1 of 5 rows; the first is d/train.jsonl:5. To leave them out, set data.accept: {invalid: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, talk(("user", "a"))]},
        {},
        "chat",
    ),
    Case(
        "no messages",
        "data.path: column 'messages' is an empty list, not a list of messages, in 1 of 5 rows; the first is d/train.jsonl:5. To leave them out, set data.accept: {invalid: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, {"messages": []}]},
        {},
        "chat",
    ),
    Case(
        "a forged end of turn",
        "data.columns: messages: a message holds a token with which the chat template ends or begins turns in 1 of 5 train rows; the first is d/train.jsonl:5, where it is <eos>. Take such tokens out of the messages; the template writes them. To leave them out, set data.accept: {control_token: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, talk(("user", "a"), ("assistant", "b<eos>"))]},
        {},
        "chat",
    ),
    Case(
        "speakers that the template refuses",
        "data.chat_template: the template refuses a conversation, or leaves a part of it out, in 1 of 5 train rows; the first is d/train.jsonl:5, where Roles must alternate. Change these rows, or give the path of a Jinja file that can write them. To leave them out, set data.accept: {template: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, talk(("user", "a"), ("user", "b"), ("assistant", "c"))]},
        {"chat_template": "alternating.jinja"},
        "chat",
    ),
    Case(
        "tools that are no JSON",
        "data.columns: tools: column 'tools' holds no tools, as tools is text that is no JSON, in 1 of 5 rows; the first is d/train.jsonl:5. To leave them out, set data.accept: {invalid: 0.2}.",
        {"train.jsonl": [*GOOD_TALK, {**GOOD_TALK[0], "tools": "[{"}]},
        {},
        "chat",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_is_answered_in_one_line(
    case: Case,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    for name, rows in case.files.items():
        write(Path("d") / name, rows)
    Path("chat.jinja").write_text(CHAT_TEMPLATE)
    Path("alternating.jinja").write_text(ALTERNATING)
    chat = {"chat_template": "chat.jinja"} if case.task == "chat" else {}
    validates = {"eval_steps": 1} if "validation_fraction" in case.data else {}
    steps = {"gradient_accumulation_steps": 1, "max_steps": 1, **validates}
    tree = {
        "task": case.task,
        "output_dir": "run",
        "model": {"model_name_or_path": str(models[case.model]), "dtype": "float32"},
        "data": {"path": "d", "max_length": 160, **chat, **case.data},
        "adapter": {"method": "lora"},
        "train": {**steps, "learning_rate": 1.0e-3},
    }
    assert report_errors(False, train_recipe, str(write_recipe(tmp_path, tree)), []) == 2
    printed = capsys.readouterr().err
    (line,) = (line for line in printed.splitlines() if line.startswith("error: "))
    assert line.removeprefix("error: ").startswith(case.message) and case.message, line
    assert not Path("run").exists()


def write(file: Path, rows: Any) -> None:
    if isinstance(rows, bytes):
        file.write_bytes(rows)
        return
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
