"""Each gate stops a run with counts and a way out, and lets pass what a recipe accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peftune.cli import report_errors, train_recipe
from peftune.data.encoders import ENCODERS, Encoding
from peftune.data.examples import Example
from peftune.data.gates import check, unknown_tokens
from peftune.data.ledger import Ledger, ledger_batch
from peftune.data.section import DataSection
from peftune.errors import DataError
from peftune.preparation import report_data
from peftune.recipe import Recipe
from tests.conftest import sentence_pairs, write_jsonl, write_recipe
from tests.data.in_memory import in_memory


@pytest.fixture
def tree(tmp_path: Path, model_folder: Path) -> dict[str, Any]:
    """A recipe whose training rows are to be spoilt."""
    return {
        "task": "summarize",
        "output_dir": str(tmp_path / "run"),
        "model": {"model_name_or_path": str(model_folder), "dtype": "float32"},
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "columns": {"prompt": "dialogue", "completion": "summary"},
            "max_length": 96,
        },
        "adapter": {"method": "lora", "r": 2, "lora_alpha": 4},
        "train": {"gradient_accumulation_steps": 1, "max_steps": 1, "learning_rate": 1.0e-3},
        "export": {"merge": False, "verify": False},
    }


def prepared(tree: dict[str, Any], rows: list[dict[str, Any]], **data: Any) -> dict[str, Any]:
    write_jsonl(Path(tree["data"]["train"]), rows)
    return report_data(Recipe.model_validate({**tree, "data": {**tree["data"], **data}}))


REPEATED = [*sentence_pairs(9), sentence_pairs(3)[1]]
BLANK = [*sentence_pairs(9), {"dialogue": "Mia: Hm.", "summary": "  "}]
LONG = [*sentence_pairs(9), {"dialogue": "Mia: Hm. " * 90, "summary": "Mia hums."}]


@pytest.mark.parametrize(
    ("rows", "gate", "message", "left"),
    [
        (
            REPEATED,
            "duplicates",
            "data.train: 1 of 10 train rows repeat an earlier one; the first is {file}:10, the same as "
            "{file}:2. Remove them. To go on with them, set data.accept: {duplicates: 0.1}.",
            10,
        ),
        (
            BLANK,
            "invalid",
            "data.columns: completion: column 'summary' is blank in 1 of 10 rows; the first is "
            "{file}:10. To leave them out, set data.accept: {invalid: 0.1}.",
            9,
        ),
        (LONG, "overlong", "To leave them out, set data.accept: {overlong: 0.1}.", 9),
    ],
    ids=["duplicates", "invalid", "overlong"],
)
def test_a_gate_is_closed_until_a_share_is_accepted(
    rows: list[dict[str, Any]], gate: str, message: str, left: int, tree: dict[str, Any]
) -> None:
    with pytest.raises(DataError) as caught:
        prepared(tree, rows)
    assert message.replace("{file}", tree["data"]["train"]) in str(caught.value)
    with pytest.raises(DataError):
        prepared(tree, rows, accept={gate: 0.09})
    report = prepared(tree, rows, accept={gate: 0.1})["train"]
    assert report["rows"] == left
    assert [(one["gate"], one["rows"], one["of"]) for one in report["accepted"]] == [(gate, 1, 10)]


def test_a_tokenizer_of_another_language() -> None:
    """Words that it does not know become one unknown token each."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "tea": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    english = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="</s>")
    texts = ["tea tea 東京", "京都 東京", "tea tea"]
    examples = [Example(i, "", text, (text,), text, ()) for i, text in enumerate(texts)]
    section = DataSection(train="t.jsonl")
    outcomes = ENCODERS["causal"](examples, Encoding(english, section, "causal"))
    table = in_memory("data.train", "t.jsonl", [{}] * 3)
    findings = unknown_tokens(Ledger([ledger_batch(examples, outcomes)]), "train", table)
    with pytest.raises(DataError) as caught:
        check(findings, section)
    assert str(caught.value) == (
        "model.model_name_or_path: at least half of the tokens are unknown to this model's tokenizer "
        "in 1 of 3 train rows; the first is t.jsonl:2. Choose a model of this language, or check the "
        "encoding of the file. To go on with them, set data.accept: {unknown_tokens: 0.3334}."
    )


def test_an_accepted_fault_stands_in_the_report_and_the_card(tree: dict[str, Any]) -> None:
    write_jsonl(Path(tree["data"]["train"]), BLANK)
    tree["data"]["accept"] = {"invalid": 0.2}
    recipe = write_recipe(Path(tree["output_dir"]).parent, tree)
    assert report_errors(True, train_recipe, str(recipe), []) == 0
    run = Path(tree["output_dir"])
    report = json.loads((run / "data_report.json").read_text())
    assert report["train"]["dropped"] == 1
    assert "- 1 of 10 train rows: invalid, left out" in (run / "README.md").read_text()


def test_a_mixture_says_how_much_of_each_source_it_uses(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    places = [write_jsonl(tmp_path / f"{i}.jsonl", sentence_pairs(n, o)) for i, n, o in
              ((0, 8, 0), (1, 30, 10))]  # fmt: skip
    del tree["data"]["train"], tree["data"]["columns"]
    columns = {"prompt": "dialogue", "completion": "summary"}
    entries = [{"train": str(file), "columns": columns, "weight": 1.0} for file in places]
    recipe = Recipe.model_validate({**tree, "data": {**tree["data"], "mixture": entries}})
    report = report_data(recipe)["train"]
    assert report["rows"] == 16
    assert report["sources"] == [f"8 of 8 rows of {places[0]}", f"8 of 30 rows of {places[1]}"]
