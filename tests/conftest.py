"""A tiny tokenizer, a tiny model and tiny data, made on the spot: no network, nothing shared."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two workers of the suite share two cores; threads that wait for a busy core only cost time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST = (
    "test_readme",
    "test_contract",
    "test_cells",
    "test_models",
    "test_recipes",
    "test_full_disk",
)
"""Files that start first: a worker that came to one of them last would be the only one at work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Encoded splits of the tests go into a folder of their own."""
    os.environ["PEFTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def answered_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artefacts are opened by the script in this process, which takes no ten seconds to start; tests
    marked `fresh_process` let it have its own, and so does every launched run."""
    if request.node.get_closest_marker("fresh_process") is not None:
        return
    from peftune.errors import ParityError
    from peftune.export import plain_scores

    def answer(path: Path) -> None:
        try:
            plain_scores.main(str(path))
        except Exception as error:
            raise ParityError(f"a fresh process could not open it: {error}") from error

    monkeypatch.setattr("peftune.export.parity.answer", answer)


REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = ("Mia", "Tom", "Ada", "Leo", "Eva", "Max")
MOODS = ("good", "bad", "odd")
TOWNS = ("York", "Haven", "Delhi", "Ulm")
VALUES = {"good": 1.5, "bad": -1.5, "odd": 0.25}
THINGS = ("a ladder", "the red bike", "two tickets", "a map", "some tea", "the green tent")


def sentence_pairs(count: int, offset: int = 0) -> list[dict[str, str]]:
    """Rows of unequal length whose completion can be read off the prompt."""
    rows = []
    for index in range(offset, offset + count):
        name, thing = NAMES[index % 6], THINGS[index // 6 % 6]
        extra = " It is late, so hurry." * (index % 4)
        rows.append(
            {
                "dialogue": f"{name}: Can I have {thing} on day {index}?{extra}",
                "summary": f"{name} wants {thing}." + " Soon." * (index % 3),
            }
        )
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training, 8 validation and 7 test rows of dialogue and summary."""
    folder = tmp_path_factory.mktemp("data")
    for split, count, offset in (("train", 40, 0), ("validation", 8, 40), ("test", 7, 48)):
        write_jsonl(folder / f"{split}.jsonl", sentence_pairs(count, offset))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer Llama of width 64 with a byte-level BPE tokenizer, saved as safetensors."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        (f"{row['dialogue']} {row['summary']}" for row in sentence_pairs(60)), trainer
    )
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", model_max_length=256
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    ).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def conversations(count: int, offset: int = 0) -> list[dict[str, Any]]:
    """Two turns each, of unequal length, the second about the first."""
    rows = []
    for one, two in zip(
        *(sentence_pairs(count, offset + shift) for shift in (0, 500)), strict=True
    ):
        turns = [(one["dialogue"], one["summary"]), (two["dialogue"], two["summary"])]
        pairs = [(("user", asked), ("assistant", told)) for asked, told in turns]
        messages = [{"role": role, "content": text} for pair in pairs for role, text in pair]
        rows.append({"messages": messages})
    return rows


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training, 8 validation and 7 test conversations, and a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    for split, count, offset in (("train", 40, 0), ("validation", 8, 40), ("test", 7, 48)):
        write_jsonl(folder / f"{split}.jsonl", conversations(count, offset))
    (folder / "chat.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return folder


SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}


def labelled_rows(count: int, offset: int) -> list[dict[str, Any]]:
    rows = []
    for index in range(offset, offset + count):
        mood, late = MOODS[index % 3], index % 2 == 0
        rows.append(
            {
                "text": f"On day {index} the tea was {mood}{' and late' * late}.",
                "label": mood,
                "labels": [mood, "late"] if late else [mood],
                "value": VALUES[mood],
                "question": "How was it?",
            }
        )
    return rows


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for split, count, offset in (("train", 60, 0), ("validation", 6, 60), ("test", 12, 66)):
        write_jsonl(folder / f"{split}.jsonl", labelled_rows(count, offset))
    return folder


def tagged_rows(count: int, offset: int) -> list[dict[str, Any]]:
    """Names of people and of towns of two words, in sentences of unequal length."""
    rows = []
    for index in range(offset, offset + count):
        pairs = [("On", "O"), ("day", "O"), (str(index), "O"), (NAMES[index % 6], "B-PER")]
        pairs += [("saw", "O"), ("New", "B-LOC"), (TOWNS[index % 4], "I-LOC")]
        pairs += [("again", "O")] * (index % 3) + [(".", "O")]
        words, tags = zip(*pairs, strict=True)
        rows.append({"words": list(words), "tags": list(tags)})
    return rows


@pytest.fixture(scope="session")
def tagged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagged")
    for split, count, offset in (("train", 60, 0), ("validation", 6, 60), ("test", 12, 66)):
        write_jsonl(folder / f"{split}.jsonl", tagged_rows(count, offset))
    return folder


def asked_rows(count: int, offset: int) -> list[dict[str, Any]]:
    """Every fifth question is not answered by its context."""
    rows = []
    for index in range(offset, offset + count):
        town, late = TOWNS[index % 4], " It was late." * (index % 4)
        context = (
            f"On day {index} the tea was good.{late} Then {NAMES[index % 6]} saw {town} again."
        )
        known = index % 5 != 4
        answer = {"text": town, "answer_start": context.index(f" {town} ") + 1}
        rows.append(
            {
                "context": context if known else context.replace(f"saw {town}", "slept"),
                "question": "What was seen?",
                "answers": [answer] if known else [],
            }
        )
    return rows


@pytest.fixture(scope="session")
def asked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    for split, count, offset in (("train", 60, 0), ("validation", 6, 60), ("test", 12, 66)):
        write_jsonl(folder / f"{split}.jsonl", asked_rows(count, offset))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, Path]:
    """By name: a decoder, two encoder-decoders and an encoder with one tokenizer."""
    import torch
    from transformers import (
        AutoTokenizer,
        BartConfig,
        BartForConditionalGeneration,
        BertConfig,
        BertForMaskedLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "eos_token_id": 1}
    bart = {
        "vocab_size": 400,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "decoder_start_token_id": 1,
        "forced_eos_token_id": None,
    }
    # Dropout depends on the rank; without it the layouts can be compared.
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    t5 = {"vocab_size": 400, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2}
    made = {
        "bert": BertForMaskedLM(BertConfig(**SIZES, **still, initializer_range=0.1)),
        "bart": BartForConditionalGeneration(BartConfig(**bart, **ends)),
        "t5": T5ForConditionalGeneration(
            T5Config(**t5, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0, **ends)
        ),
    }
    folders = {"llama": model_folder}
    sentinels = [f"<extra_id_{index}>" for index in range(16)]
    for name, model in made.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        # What these models were pretrained with to stand for a hidden part.
        hides = (
            {"additional_special_tokens": sentinels} if name == "t5" else {"mask_token": "<mask>"}
        )
        tokenizer.add_special_tokens(hides)
        tokenizer.save_pretrained(folders[name])
    return folders


def summary_tree(model_folder: Path, data_folder: Path) -> dict[str, Any]:
    """A small valid recipe as nested dicts, but for its output folder."""
    return {
        "task": "summarize",
        "output_dir": "unused",
        "seed": 3,
        "model": {"model_name_or_path": str(model_folder), "dtype": "float32"},
        "data": {
            "path": str(data_folder),
            "columns": {"completion": "summary"},
            "prompt_template": "{dialogue}\nSummary:",
            "max_length": 128,
        },
        "adapter": {"method": "lora", "r": 4, "lora_alpha": 8},
        "train": {
            "per_device_train_batch_size": 2,
            "global_batch_size": 8,
            "max_steps": 6,
            "learning_rate": 1.0e-2,
            "eval_steps": 3,
        },
        "evaluation": {"max_new_tokens": 4},
    }


@pytest.fixture
def recipe_tree(model_folder: Path, data_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A small valid recipe as nested dicts; tests change it and write it with `write_recipe`."""
    return summary_tree(model_folder, data_folder) | {"output_dir": str(tmp_path / "run")}


def answered_otherwise(tree: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """The recipe with held-out rows that each step makes less likely: none is answered like them."""
    lines = (data / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{**json.loads(line), "summary": f"#{n}%{n}#" * 3} for n, line in enumerate(lines)]
    write_jsonl(folder / "held_out.jsonl", rows)
    files = {split: str(data / f"{split}.jsonl") for split in ("train", "test")}
    kept = {key: value for key, value in tree["data"].items() if key != "path"}
    return tree | {"data": kept | files | {"validation": str(folder / "held_out.jsonl")}}


def write_recipe(folder: Path, tree: dict[str, Any]) -> Path:
    import yaml

    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real models and data, where a developer has them."""
    folder = Path(os.environ.get("PEFTUNE_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no real data: set PEFTUNE_SHARED to a folder with data/ and models/")
    return folder
