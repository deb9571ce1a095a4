"""The shipped encoder and encoder-decoder: small, safe, pretrained by their scripts, described truly."""

import itertools
import json
import math
import random
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartForConditionalGeneration,
    BertForMaskedLM,
)

from peftune.embedded import (
    corpora,
    embedded_path,
    make_passages,
    make_phrases,
    make_requests,
    pretrain_encoder,
    pretrain_encoder_decoder,
)
from peftune.embedded.make_dialogues import make_splits as dialogue_splits
from peftune.embedded.writing import normalized
from peftune.export.card import base_license
from peftune.model.base import load_config
from peftune.model.head import model_class
from peftune.model.section import ModelSection
from tests.conftest import REPOSITORY

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Shipped:
    """One model of the package and how it was made."""

    name: str
    script: ModuleType
    loader: Any
    kind: type
    loss: Callable[[Any, Any], torch.Tensor]
    documents: Callable[[int], Iterator[str]]

    @property
    def folder(self) -> Path:
        return embedded_path(f"embedded:{self.name}")

    @property
    def readme(self) -> str:
        return (self.folder / "README.md").read_text(encoding="utf-8")

    @property
    def curve(self) -> Curve:
        lines = (self.folder / "loss_curve.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


SHIPPED = (
    Shipped(
        "encoder",
        pretrain_encoder,
        AutoModelForMaskedLM,
        BertForMaskedLM,
        pretrain_encoder.masked_loss,
        corpora.encoder_documents,
    ),
    Shipped(
        "encoder-decoder",
        pretrain_encoder_decoder,
        AutoModelForSeq2SeqLM,
        BartForConditionalGeneration,
        pretrain_encoder_decoder.span_loss,
        corpora.encoder_decoder_documents,
    ),
)


def no_connection(*arguments: object) -> None:
    raise AssertionError("a connection was made")


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda shipped: shipped.name)
def shipped(request: pytest.FixtureRequest) -> Shipped:
    return request.param


@pytest.fixture(scope="module")
def model(shipped: Shipped) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_connection)
        return shipped.loader.from_pretrained(shipped.folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(shipped: Shipped) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_connection)
        return AutoTokenizer.from_pretrained(shipped.folder)


def test_the_folder_is_at_most_8_mb_of_text_and_safetensors(shipped: Shipped) -> None:
    files = [file for file in shipped.folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    for file in files:
        if file.name != "model.safetensors":
            assert "\0" not in file.read_text(encoding="utf-8"), file.name


def test_it_is_what_its_name_says(shipped: Shipped, model: Any) -> None:
    assert type(model) is shipped.kind
    section = ModelSection(model_name_or_path=f"embedded:{shipped.name}")
    assert model_class(load_config(section)) == shipped.name
    assert base_license(section) == {"license": "apache-2.0"}


def test_loading_runs_no_code_of_the_folder(shipped: Shipped) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((shipped.folder / name).read_text(encoding="utf-8"))


def test_every_weight_is_finite(model: Any) -> None:
    assert [name for name, w in model.named_parameters() if not bool(w.isfinite().all())] == []


def test_tokenizer_and_model_agree(model: Any, tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert max(tokenizer.get_vocab().values()) < model.config.vocab_size
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.model_max_length == 512


def test_the_tokens_around_a_text(shipped: Shipped, tokenizer: Any) -> None:
    encoded = tokenizer("Hello.", "My name is Mia.")
    ids = encoded["input_ids"]
    text = tokenizer.decode(ids)
    if shipped.name == "encoder":
        assert text == "[CLS]Hello.[SEP]My name is Mia.[SEP]"
        assert tokenizer.mask_token == "[MASK]"
        second = encoded["input_ids"].index(tokenizer.sep_token_id) + 1
        assert encoded["token_type_ids"] == [0] * second + [1] * (
            len(text := encoded["input_ids"]) - second
        )
    else:
        assert text == "Hello.</s>My name is Mia.</s>"
        assert (tokenizer.eos_token, tokenizer.mask_token) == ("</s>", "<mask>")


def texts_of_the_data_sets() -> set[str]:
    requests = make_requests.make_splits().values()
    pairs = [pair for pairs in make_phrases.make_splits().values() for pair in pairs]
    passages = make_passages.make_splits().values()
    dialogues = dialogue_splits().values()
    return (
        {row.text for rows in requests for row in rows}
        | {text for pair in pairs for text in (pair.english, pair.german)}
        | {row.context for rows in passages for row in rows}
        | {row.dialogue for rows in dialogues for row in rows}
    )


def test_the_text_of_the_data_sets_survives_the_tokenizer(tokenizer: Any) -> None:
    texts = sorted(texts_of_the_data_sets())
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert tokenizer.batch_decode(encoded) == texts
    assert max(map(len, encoded)) < tokenizer.model_max_length / 2


@pytest.mark.thorough
def test_the_corpus_shows_no_text_of_the_data_sets(shipped: Shipped) -> None:
    """A test row may come up in no document, be it alone or as one line among several."""
    kept_out = {normalized(text) for text in texts_of_the_data_sets()}
    for text in itertools.islice(shipped.documents(3), 4000):
        parts = {normalized(part) for part in (text, *text.splitlines())}
        assert not parts & kept_out


def test_known_texts_are_dropped_when_they_are_drawn() -> None:
    """Chance alone seldom draws one, so here every second document is one."""
    makers = [
        (1.0, lambda rng: "Known, text!"),
        (1.0, lambda rng: f"new {rng.random()}"),
        (1.0, lambda rng: "Known text.\n\nnew"),
    ]
    drawn = list(itertools.islice(corpora.documents(0, makers, {"known text"}), 200))
    assert all(text.startswith("new") for text in drawn)


def test_the_corpus_has_no_held_out_wording_and_no_held_out_pair() -> None:
    """Pairs of lines are a sentence and its translation; none combines words held out for tests."""
    draws: list[str] = []

    def seen(pair: Any) -> Any:
        draws.extend(pair.combinations)
        return pair

    rng = random.Random(1)
    with pytest.MonkeyPatch.context() as patch:
        original = make_phrases.make_pair
        patch.setattr(make_phrases, "make_pair", lambda r, held_out: seen(original(r, held_out)))
        for _ in range(300):
            corpora._sentence_pair(rng, set())
    assert len(draws) > 100
    assert not any(map(make_phrases.is_held_out, draws))


@pytest.mark.thorough
def test_the_script_makes_the_shipped_tokenizer_and_shapes(
    shipped: Shipped, model: Any, tokenizer: Any
) -> None:
    made = shipped.script.train_tokenizer()
    assert made.get_vocab() == tokenizer.get_vocab()
    sample = "Mia lent Tom a ladder for $45. Wo schläft der Hund?"
    assert made(sample)["input_ids"] == tokenizer(sample)["input_ids"]
    fresh = shipped.script.new_model(made)
    shapes = {name: weight.shape for name, weight in fresh.named_parameters()}
    assert {name: weight.shape for name, weight in model.named_parameters()} == shapes


def test_the_loss_falls(shipped: Shipped, model: Any) -> None:
    """From a guess among all tokens to less than half of it."""
    held_out = [line["held_out_loss"] for line in shipped.curve]
    assert held_out[0] > 0.9 * math.log(model.config.vocab_size)
    assert held_out[-1] < 0.5 * held_out[0]
    assert held_out[-1] < held_out[len(held_out) // 2]


def test_the_weights_are_those_of_the_end_of_the_curve(
    shipped: Shipped, model: Any, tokenizer: Any
) -> None:
    held_out = next(shipped.script.batches(tokenizer, 1))
    with torch.no_grad():
        loss = float(shipped.loss(model, held_out))
    assert loss == pytest.approx(shipped.curve[-1]["held_out_loss"], abs=0.03)


def test_a_mask_stands_for_a_span() -> None:
    """What is left of a text is in its order, and something is always lost."""
    rng, mask = random.Random(0), 1000
    for size in [*range(2, 40)] * 5:
        ids = [*range(size), 999]
        source = pretrain_encoder_decoder.corrupted(ids, mask, rng)
        kept = [token for token in source if token != mask]
        assert kept == sorted(set(kept)) and set(kept) < set(ids) and kept[-1] == 999
        gaps = [index for index, token in enumerate(source) if token == mask]
        assert 1 <= len(gaps) <= size
        # A mask stands where tokens are missing, and nowhere else.
        for left, right in itertools.pairwise([-1, *source]):
            assert right == mask or left == mask or right in (left + 1, 999)


def test_a_fifth_of_the_tokens_is_to_be_predicted(tokenizer: Any, shipped: Shipped) -> None:
    if shipped.name != "encoder":
        pytest.skip("masks are the encoder's")
    batch = next(pretrain_encoder.batches(tokenizer, 4))
    chosen = batch.places.sum()
    assert 0.15 < float(batch.places.float().mean()) < 0.22
    assert len(batch.targets) == chosen
    hidden = (batch.ids[batch.places] == tokenizer.mask_token_id).float().mean()
    assert 0.7 < float(hidden) < 0.9
    assert not set(batch.targets.tolist()) & {tokenizer.cls_token_id, tokenizer.sep_token_id}


def number_before(shipped: Shipped, words: str) -> int:
    """The number that stands before these words in the README."""
    (found,) = re.findall(rf"([\d,]+) {words}", shipped.readme)
    return int(found.replace(",", ""))


def test_the_readme_has_the_numbers_of_the_files(
    shipped: Shipped, model: Any, tokenizer: Any
) -> None:
    readme, weights = shipped.readme, shipped.folder / "model.safetensors"
    assert f"| Parameters | {model.num_parameters():,}," in readme
    assert number_before(shipped, "bytes") == weights.stat().st_size
    assert f"| Vocabulary | {len(tokenizer):,} tokens" in readme
    assert f"of width {model.config.hidden_size}," in readme


def test_the_readme_has_points_of_the_curve_and_its_end(shipped: Shipped) -> None:
    shown = [
        [float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")]
        for line in shipped.readme.splitlines()
        if re.match(r"\| [\d,]+ \|", line)
    ]
    curve = shipped.curve
    assert len(shown) >= 5
    assert [shown[0][0], shown[-1][0]] == [curve[0]["step"], curve[-1]["step"]]
    of_step = {line["step"]: list(line.values()) for line in curve}
    assert shown == [of_step[step] for step, *_ in shown]
    assert "`loss_curve.jsonl`" in shipped.readme


def test_the_readme_names_script_corpus_and_licence(shipped: Shipped) -> None:
    (script,) = re.findall(r"^    python (\S+)", shipped.readme, re.MULTILINE)
    assert REPOSITORY / script == Path(str(shipped.script.__file__))
    assert "Our own generated text and nothing else" in shipped.readme
    assert "licence is Apache-2.0" in shipped.readme
