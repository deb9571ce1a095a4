import re

import pytest
import yaml
from huggingface_hub import ModelCard

from peftune import __version__
from peftune.environment import versions
from peftune.export.card import Told, base_license, model_card
from peftune.model.section import ModelSection
from peftune.objectives import OBJECTIVES
from peftune.recipe import Recipe

ROWS = {"train": 1200, "validation": 80, "test": 70}
RESULTS = {
    "examples": 70,
    "target_tokens": 2345,
    "base": {"rougeL": {"value": 0.1, "low": 0.08, "high": 0.12}, "loss": 3.0},
    "adapted": {"rougeL": {"value": 0.4, "low": 0.35, "high": 0.45}, "loss": 1.5},
}
TRAIN_RESULTS = {"global_step": 225, "train_loss": 1.7, "train_tokens": 12_345_678}


@pytest.fixture
def recipe(recipe_tree):
    """A recipe with names from the Hub, as `model_card` gets it; keys replace whole sections."""

    def recipe(**keys):
        tree = {
            **recipe_tree,
            "output_dir": "outputs/talk",
            "model": {"model_name_or_path": "some/base"},
            "data": {"path": "some/talks", "prompt_template": "{dialogue}\nSummary:"},
            **keys,
        }
        return Recipe.model_validate(tree).model_dump(mode="json")

    return recipe


def card_of(recipe, rows, results, train_results=None, license_fields=None, selftest=None, **more):
    splits = {
        split: {"rows": count, "dropped": 3, "changed": 0, "tokens": 9 * count, "accepted": []}
        | {"digest": f"{split}0123"}
        for split, count in rows.items()
    }
    duplicates = {"gate": "duplicates", "rows": 7, "of": 1203, "left_out": False}
    splits["train"]["accepted"].append(duplicates)
    known = (train_results or {}, license_fields or {}, selftest or {})
    return model_card(Told(recipe, OBJECTIVES["causal"], splits, results, *known, **more))


def head_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def section_of(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block_of(card, language):
    """The text of the first code block in a language, up to the line that closes its fence."""
    return re.search(rf"^(`{{3,}}){language}\n(.*?)^\1$", card, re.S | re.M).group(2)


def fold_of(card):
    """The recipe in the fold, read back."""
    assert "<details>" in card.split("```yaml")[0]
    return yaml.safe_load(block_of(card, "yaml"))


def test_the_hub_reads_the_head(recipe):
    card = ModelCard(card_of(recipe(), ROWS, RESULTS, TRAIN_RESULTS, {"license": "mit"}))
    assert card.data.base_model == "some/base"
    assert card.data.base_model_relation == "adapter"
    assert card.data.to_dict()["library_name"] == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.datasets == ["some/talks"]
    assert card.data.license == "mit"
    assert {"base_model:adapter:some/base", "lora", "peftune"} <= set(card.data.tags)
    assert card.data.model_name == "talk"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "rougeL": 0.4,
        "loss": 1.5,
    }
    assert {(r.dataset_type, r.dataset_split) for r in card.data.eval_results} == {
        ("some/talks", "test")
    }


def test_nothing_unknown_is_made_up(recipe, data_folder):
    local = recipe(data={"path": str(data_folder)})
    card = card_of(local, ROWS, {})
    assert head_of(card).keys() & {"license", "language", "datasets", "model-index"} == set()
    assert "This run had no test split." in card
    assert "licence of the base model is not known" in card


@pytest.mark.parametrize("relative", [False, True])
def test_no_folder_of_this_machine_is_told(
    recipe, model_folder, data_folder, tmp_path, monkeypatch, relative
):
    monkeypatch.chdir(model_folder.parent)
    model, data = str(model_folder), str(data_folder)
    if relative:
        model, data = model_folder.name, f"../{data_folder.parent.name}/{data_folder.name}"
    (tmp_path / "chat.jinja").write_text("")
    keys = {
        "output_dir": str(tmp_path / "talk"),
        "model": {"model_name_or_path": model},
        "data": {
            "path": data,
            "test": str(data_folder / "test.jsonl"),
            "chat_template": str(tmp_path / "chat.jinja"),
        },
    }
    card = card_of(recipe(**keys), ROWS, RESULTS, TRAIN_RESULTS)
    for folder in (model_folder, data_folder, tmp_path):
        assert str(folder.parent) not in card
        assert folder.parent.name not in card
    assert f"`{model_folder.name}` (a local folder where this adapter was trained)" in card
    assert f'from_pretrained("path/to/{model_folder.name}")' in card
    assert "base_model" not in head_of(card)
    folded = fold_of(card)
    assert folded["output_dir"] == "talk"
    assert folded["data"]["path"] == data_folder.name
    assert folded["data"]["test"] == "test.jsonl"
    assert folded["data"]["chat_template"] == "chat.jinja"


def test_a_folder_that_looks_like_a_hub_name_is_a_folder(recipe, tmp_path, monkeypatch):
    (tmp_path / "some" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    head = head_of(card_of(recipe(), ROWS, RESULTS))
    assert "base_model" not in head
    assert head["datasets"] == ["some/talks"]


def test_hub_names_without_an_owner(recipe):
    keys = {"model": {"model_name_or_path": "gpt2"}, "data": {"path": "squad"}}
    head = head_of(card_of(recipe(**keys), ROWS, RESULTS))
    assert (head["base_model"], head["datasets"]) == ("gpt2", ["squad"])


def test_the_environment_stays_out(recipe, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "wandb_secret")
    assert "secret" not in card_of(recipe(), ROWS, RESULTS, TRAIN_RESULTS)


def test_the_folded_recipe_is_the_recipe(recipe):
    """Also with a code block, braces and slashes in the template."""
    template = "/sum\n```\n{dialogue}\n```\n---"
    talk = recipe(data={"path": "some/talks", "prompt_template": template})
    card = card_of(talk, ROWS, RESULTS)
    assert block_of(card, "text") == template + "\n"
    folded = fold_of(card)
    assert folded == {**talk, "output_dir": "talk"}
    assert Recipe.model_validate(folded).data.prompt_template == template


def test_both_models_with_intervals_and_sample_sizes(recipe):
    part = section_of(card_of(recipe(), ROWS, RESULTS, TRAIN_RESULTS), "Evaluation")
    assert "| rougeL | 0.1000 [0.0800, 0.1200] | 0.4000 [0.3500, 0.4500] |" in part
    assert "| loss | 3.0000 | 1.5000 |" in part
    assert "70 rows with 2,345 target tokens" in part
    assert "95 % bootstrap" in part


def test_rows_of_each_split_and_what_was_learnt(recipe):
    part = section_of(card_of(recipe(), ROWS, RESULTS), "Data")
    assert "| train | 1,200 | 3 | 0 | 10,800 |" in part and "| test | 70 | 3 | 0 | 630 |" in part
    assert "- 7 of 1,203 train rows: duplicates, kept" in part
    assert "the completion and its end token" in part
    text = recipe(task="text", data={"path": "some/talks"})
    assert "Learnt: all tokens" in section_of(card_of(text, ROWS, {}), "Data")


def test_how_it_was_trained(recipe):
    keys = {"quantization": {"method": "bnb-nf4"}}
    part = section_of(card_of(recipe(**keys), ROWS, RESULTS, TRAIN_RESULTS), "Training")
    for row in (
        "| quantization | bnb-nf4 |",
        "| rows per step | 8 |",
        "| learning rate | 0.01, cosine |",
        "| global step | 225 |",
        "| train loss | 1.7000 |",
        "| train tokens | 12,345,678 |",
    ):
        assert row in part


def test_how_to_load_what_is_there(recipe):
    model = {"model_name_or_path": "some/base", "revision": "abc"}
    part = section_of(card_of(recipe(model=model), ROWS, RESULTS), "Use")
    assert 'AutoModelForCausalLM.from_pretrained("some/base", revision="abc")' in part
    assert "PeftModel.from_pretrained(base, " in part
    assert "/merged" in part
    assert "{dialogue}\nSummary:" in part
    unmerged = recipe(export={"merge": False})
    assert "merged" not in section_of(card_of(unmerged, ROWS, RESULTS), "Use")


def test_the_code_to_load_runs(recipe, adapter_folder, llama, tokenizer_folder, monkeypatch):
    """The block of a card for a local base, with its two places filled in."""
    keys = {"model": {"model_name_or_path": str(llama)}}
    card = card_of(recipe(**keys), ROWS, RESULTS)
    code = block_of(card, "python")
    code = code.replace(f"path/to/{llama.name}", str(llama))
    code = code.replace('base, "path/to/this/folder"', f'base, "{adapter_folder}"')
    code = code.replace("path/to/this/folder", str(tokenizer_folder))
    names = {}
    exec(code, names)
    assert names["model"].peft_config["default"].r == 4
    assert names["tokenizer"].eos_token == "<eos>"


@pytest.fixture
def tokenizer_folder(model_folder):
    return model_folder


def test_the_code_for_the_embedded_base_is_python(recipe):
    keys = {"model": {"model_name_or_path": "embedded:decoder"}}
    card = card_of(recipe(**keys), ROWS, RESULTS)
    code = block_of(card, "python")
    compile(code, "card", "exec")
    assert 'from_pretrained(embedded_path("embedded:decoder"))' in code
    assert "base_model" not in head_of(card)


def test_versions_are_those_of_this_installation(recipe):
    part = section_of(card_of(recipe(), ROWS, RESULTS), "Versions")
    assert f"peftune {__version__}" in part
    assert f"peft {versions()['peft']}" in part


MERGE_REPORT = {
    "merge_base": "dequantized",
    "dtype": "bfloat16",
    "parity": {"difference": 0.00123, "kl": None, "places": 64},
}


def test_how_the_merged_model_compares(recipe):
    part = section_of(card_of(recipe(), ROWS, RESULTS, merge_report=MERGE_REPORT), "Merged model")
    assert "to the quantized weights that it was trained on" in part and "to bfloat16" in part
    assert "| difference | 0.00123 |" in part and "| places | 64 |" in part and "kl" not in part
    unproven = MERGE_REPORT | {"parity": None}
    part = section_of(card_of(recipe(), ROWS, RESULTS, merge_report=unproven), "Merged model")
    assert "It was not compared with the trained model." in part
    assert "## Merged model" not in card_of(recipe(), ROWS, RESULTS)


def test_a_merged_model_is_a_finetune_that_needs_no_peft(recipe):
    card = card_of(recipe(), ROWS, RESULTS, merged=True)
    data = ModelCard(card).data
    assert (data.base_model_relation, data.to_dict()["library_name"]) == (
        "finetune",
        "transformers",
    )
    assert "PeftModel" not in card and "with a lora adapter merged into it" in card
    assert "vllm serve path/to/this/folder --served-model-name talk\n" in card


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"r": 12}, "vllm serve some/base --enable-lora --max-lora-rank 16 --lora-modules talk="),
        ({"r": 600}, None),
        ({"method": "dora"}, None),
        ({"modules_to_save": ["lm_head"]}, None),
    ],
)
def test_vllm_serves_plain_lora_beside_its_base(recipe, keys, line):
    use = section_of(card_of(recipe(adapter={"method": "lora", **keys}), ROWS, RESULTS), "Use")
    assert line in use if line else "vllm" not in use


def test_a_template_of_one_field_is_ollamas(recipe):
    use = section_of(card_of(recipe(), ROWS, RESULTS, merged=True), "Use")
    assert 'FROM .\nPARAMETER temperature 0\nTEMPLATE """{{ .Prompt }}\nSummary:"""' in use
    two = recipe(data={"path": "some/talks", "prompt_template": "{context} {question}"})
    assert "TEMPLATE" not in section_of(card_of(two, ROWS, RESULTS, merged=True), "Use")


@pytest.mark.parametrize(
    ("readme", "known"),
    [
        ("---\nlicense: mit\n---\nText", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n",
            {"license": "other", "license_name": "mine", "license_link": "LICENSE"},
        ),
        ("---\ntags: [x]\n---\n", {}),
        ("No head at all.", {}),
        ("---\nlicense: [unclosed\n---\n", {}),
        ("---\n- a list\n---\n", {}),
        (None, {}),
    ],
    ids=["named", "other", "silent", "headless", "broken", "list", "absent"],
)
def test_the_licence_is_the_one_the_base_states(tmp_path, readme, known):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    section = ModelSection(model_name_or_path=str(tmp_path))
    assert base_license(section) == known


def test_a_base_that_cannot_be_reached_has_no_known_licence():
    assert base_license(ModelSection(model_name_or_path="some/base")) == {}


def test_an_accepted_failure_of_the_self_test_is_a_limit(recipe):
    accepted = {"name": "padding", "accepted": True, "failure": "rows change by 3.0e-01."}
    passed = {"name": "loss", "accepted": False, "failure": None}
    card = card_of(recipe(), ROWS, RESULTS, selftest={"checks": [accepted, passed]})
    limits = section_of(card, "Limits")
    assert "`padding` failed, and the recipe accepts it: rows change by 3.0e-01." in limits
    assert "`loss`" not in limits
