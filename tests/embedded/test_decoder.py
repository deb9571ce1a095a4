"""The shipped decoder: small, safe to load, pretrained by the committed script, described truly."""

import itertools
import json
import math
import random
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from peftune.embedded import embedded_path
from peftune.embedded import pretrain_decoder as pretrain
from peftune.embedded.make_dialogues import Row, make_row, make_splits
from peftune.embedded.writing import normalized
from peftune.export.card import base_license
from peftune.model.section import ModelSection
from tests.conftest import REPOSITORY

FOLDER = embedded_path("embedded:decoder")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
WEIGHTS = FOLDER / "model.safetensors"
Curve = list[dict[str, float]]


def no_connection(*arguments: object) -> None:
    raise AssertionError("a connection was made")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_connection)
        return AutoModelForCausalLM.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_connection)
        return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    return make_splits()


@pytest.fixture(scope="module")
def curve() -> Curve:
    lines = (FOLDER / "loss_curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_folder_is_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 8_000_000


def test_weights_are_safetensors_and_nothing_else() -> None:
    """Everything else is text, so nothing in the folder can hold a pickle."""
    for file in FOLDER.iterdir():
        if file != WEIGHTS:
            assert "\0" not in file.read_text(encoding="utf-8"), file.name
    assert WEIGHTS.is_file()


def test_it_is_a_llama_of_2_to_4_million_parameters(model: LlamaForCausalLM) -> None:
    assert type(model) is LlamaForCausalLM
    assert 2_000_000 <= model.num_parameters() <= 4_000_000


def test_loading_runs_no_code_of_the_folder() -> None:
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_every_weight_is_finite(model: LlamaForCausalLM) -> None:
    assert [name for name, w in model.named_parameters() if not bool(w.isfinite().all())] == []


def test_tokenizer_and_model_agree(model: LlamaForCausalLM, tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert max(tokenizer.get_vocab().values()) < model.config.vocab_size
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.pad_token_id == model.generation_config.pad_token_id


def test_the_text_of_the_data_set_survives_the_tokenizer(
    tokenizer: Any, splits: dict[str, list[Row]]
) -> None:
    rows = list(itertools.chain(*splits.values()))
    texts = [text for row in rows for text in (row.dialogue, row.summary)]
    encoded = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(encoded) == texts
    assert max(map(len, encoded)) < tokenizer.model_max_length / 2


def test_every_digit_is_a_token(tokenizer: Any) -> None:
    assert tokenizer.tokenize("2026: 10:45") == [
        "2",
        "0",
        "2",
        "6",
        ":",
        "Ġ",
        "1",
        "0",
        ":",
        "4",
        "5",
    ]


@pytest.mark.thorough
def test_the_script_makes_the_shipped_tokenizer(tokenizer: Any) -> None:
    made = pretrain.train_tokenizer()
    assert made.get_vocab() == tokenizer.get_vocab()
    sample = "Mia: I am off to Oslo.\nTom: Bring a ladder!"
    assert made(sample)["input_ids"] == tokenizer(sample)["input_ids"]
    assert made.chat_template == tokenizer.chat_template


def test_the_script_makes_a_model_of_the_shipped_shape(
    model: LlamaForCausalLM, tokenizer: Any
) -> None:
    fresh = pretrain.new_model(tokenizer)
    shapes = {name: weight.shape for name, weight in fresh.named_parameters()}
    assert {name: weight.shape for name, weight in model.named_parameters()} == shapes


def test_the_loss_falls(curve: Curve) -> None:
    """From a guess among all tokens; noise may hide progress over 50 steps, never over 250."""
    held_out = [line["held_out_loss"] for line in curve]
    assert held_out[0] == pytest.approx(math.log(pretrain.VOCABULARY), abs=0.1)
    assert all(later < earlier for earlier, later in zip(held_out, held_out[5:], strict=False))
    assert held_out[-1] < 1.2
    assert max(line["loss"] for line in curve[-5:]) < 1.2


def test_the_curve_counts_every_token(curve: Curve) -> None:
    assert [line["step"] for line in curve] == list(range(0, 50 * len(curve), 50))
    tokens = pretrain.BATCH * pretrain.WINDOW
    assert [line["tokens"] for line in curve] == [(line["step"] + 1) * tokens for line in curve]


def test_the_weights_are_those_of_the_end_of_the_curve(
    model: LlamaForCausalLM, tokenizer: Any, curve: Curve
) -> None:
    held_out = next(pretrain.windows(tokenizer, 1))
    with torch.no_grad():
        loss = float(pretrain.window_loss(model, held_out))
    assert loss == pytest.approx(curve[-1]["held_out_loss"], abs=0.01)


def test_rows_of_the_data_set_are_left_out_of_the_corpus(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[Row]]
) -> None:
    """Chance alone never draws them, so here every second dialogue is one of the data set."""
    rows = [row for split in ("test", "validation", "train") for row in splits[split]]
    drawn, offered = itertools.count(), []

    def make_known_row(rng: random.Random, held_out_words: bool) -> Row:
        number = next(drawn)
        if number % 2:
            return make_row(rng, held_out_words)
        row = rows[number // 2 % len(rows)]
        offered.append(row.dialogue)
        return row

    monkeypatch.setattr(pretrain, "make_row", make_known_row)
    corpus = {normalized(text) for text in itertools.islice(pretrain.documents(3), 5000)}
    assert len(set(offered)) == len(rows)
    assert corpus & {normalized(row.dialogue) for row in rows} == set()


def test_the_corpus_has_no_summaries(splits: dict[str, list[Row]]) -> None:
    corpus = "\n".join(itertools.islice(pretrain.documents(2), 3000))
    rows = splits["validation"] + splits["test"]
    assert [row.summary for row in rows if row.summary.split(". ")[0] in corpus] == []
    assert "Summary" not in corpus


def number_before(words: str) -> int:
    """The number that stands before these words in the README."""
    (found,) = re.findall(rf"([\d,]+) {words}", README)
    return int(found.replace(",", ""))


def test_the_readme_has_the_numbers_of_the_files(model: LlamaForCausalLM, tokenizer: Any) -> None:
    assert f"| Parameters | {model.num_parameters():,}," in README
    assert number_before("bytes") == WEIGHTS.stat().st_size
    rows, tokens = model.config.vocab_size, len(tokenizer)
    assert f"| Vocabulary | {tokens:,} tokens" in README
    assert f"has rows for {rows:,}; the other {rows - tokens:,} are unused" in README
    assert number_before("positions") == model.config.max_position_embeddings
    assert number_before("layers") == model.config.num_hidden_layers
    assert f"of width {model.config.hidden_size}," in README


def test_the_readme_has_points_of_the_curve(curve: Curve) -> None:
    shown = [
        [float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")]
        for line in README.splitlines()
        if re.match(r"\| [\d,]+ \|", line)
    ]
    assert len(shown) >= 5
    assert [shown[0][0], shown[-1][0]] == [curve[0]["step"], curve[-1]["step"]]
    of_step = {line["step"]: list(line.values()) for line in curve}
    assert shown == [of_step[step] for step, *_ in shown]
    assert "`loss_curve.jsonl`" in README


def test_the_readme_names_script_corpus_and_licence() -> None:
    (script,) = re.findall(r"^    python (\S+)$", README, re.MULTILINE)
    assert REPOSITORY / script == Path(pretrain.__file__)
    assert "Our own generated English text" in README
    assert "`embedded:dialogues`" in README
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license = "Apache-2.0"' in project and "licence is Apache-2.0" in README


def test_model_cards_can_read_the_licence() -> None:
    section = ModelSection(model_name_or_path="embedded:decoder")
    assert base_license(section) == {"license": "apache-2.0"}
