"""Generation: the same texts for any batch and any number of ranks, from the recipe alone."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

from peftune.errors import ModelError
from peftune.evaluation.generate import (
    completion_text,
    generate,
    generate_on_ranks,
    generation_config,
    own_settings,
    padded,
    rank_share,
)
from peftune.evaluation.section import EvaluationSection

CPU = torch.device("cpu")
EOS = 1
SECTION = EvaluationSection(max_new_tokens=8)
LENGTHS = (3, 30, 1, 12, 12, 7, 25, 2, 19, 5, 11)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def model(model_folder: Path) -> Any:
    """A float32 model with weights so large that its words depend on every token of the prompt."""
    tiny = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    torch.manual_seed(3)
    for parameter in tiny.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return tiny


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    """11 prompts of 1 to 30 tokens, no two alike, in no order of length."""
    draw = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(4, 384, (n,), generator=draw).tolist()) for n in LENGTHS]


def by_hand(
    model: Any, prompt: tuple[int, ...], stop_ids: tuple[int, ...], count: int
) -> list[int]:
    """Greedy decoding without padding, batches or cache."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + count:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] in stop_ids:
                break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_texts_are_those_of_plain_greedy_decoding(model, prompts, tokenizer, batch_size) -> None:
    expected = [
        tokenizer.decode(by_hand(model.eval(), prompt, (EOS,), 8), skip_special_tokens=True).strip()
        for prompt in prompts
    ]
    assert len(set(expected)) == len(prompts), "the tiny model must tell the prompts apart"
    texts = generate(model, prompts, tokenizer, SECTION, (EOS,), batch_size, CPU)
    assert texts == expected


def test_beams_give_equal_texts_for_any_batch_size(model, prompts, tokenizer) -> None:
    section = EvaluationSection(max_new_tokens=8, num_beams=3)
    texts = [generate(model, prompts, tokenizer, section, (EOS,), n, CPU) for n in (1, 4, 16)]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0] != generate(model, prompts, tokenizer, SECTION, (EOS,), 4, CPU)


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(model, prompts, tokenizer) -> None:
    """The stop token is an ordinary word of the tokenizer, as in some chat templates."""
    ids = by_hand(model.eval(), prompts[1], (), 8)
    stop = next(token for token in ids[2:] if token not in ids[:2])
    expected = tokenizer.decode(ids[: ids.index(stop)], skip_special_tokens=True).strip()
    texts = generate(model, prompts, tokenizer, SECTION, (EOS, stop), 4, CPU)
    assert texts[1] == expected


def test_the_model_is_not_called_after_the_stop_token(model, prompts, tokenizer) -> None:
    ids = by_hand(model.eval(), prompts[1], (), 8)
    stop = next(token for token in ids[2:] if token not in ids[:2])
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    generate(model, [prompts[1]], tokenizer, SECTION, (EOS, stop), 1, CPU)
    assert len(calls) == ids.index(stop) + 1 < 8


def test_special_tokens_are_no_text(tokenizer) -> None:
    words = tokenizer.encode(" a ladder", add_special_tokens=False)
    ids = [*words[:1], tokenizer.pad_token_id, *words[1:], 99, *words]
    assert completion_text(ids, tokenizer, stop_ids=(99,)) == "a ladder"


def test_no_more_tokens_are_made_than_asked_for(model, prompts, tokenizer) -> None:
    shortest = EvaluationSection(max_new_tokens=1)
    texts = generate(model, prompts, tokenizer, shortest, (EOS,), 4, CPU)
    firsts = [by_hand(model, prompt, (EOS,), 1) for prompt in prompts]
    assert texts == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in firsts]


def test_the_settings_of_the_checkpoint_change_nothing(model, prompts, tokenizer) -> None:
    expected = generate(model, prompts, tokenizer, SECTION, (EOS,), 4, CPU)
    model.generation_config = shipped = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        min_new_tokens=7,
        max_length=9,
        suppress_tokens=[by_hand(model, prompts[0], (), 1)[0]],
        forced_eos_token_id=9,
        eos_token_id=9,
    )
    assert generate(model, prompts, tokenizer, SECTION, (EOS,), 4, CPU) == expected
    assert model.generation_config is shipped
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    assert generate(adapted, prompts, tokenizer, SECTION, (EOS,), 4, CPU) == expected
    assert model.generation_config is shipped


def test_the_settings_come_back_after_a_failure(model) -> None:
    shipped = model.generation_config
    with (
        pytest.raises(KeyboardInterrupt),
        own_settings(model, generation_config(SECTION, (EOS,), 0)),
    ):
        raise KeyboardInterrupt
    assert model.generation_config is shipped


def test_generation_says_nothing(model, prompts, tokenizer, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    for beams in (1, 2):
        section = EvaluationSection(max_new_tokens=2, num_beams=beams)
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error", UserWarning)
            generate(model, prompts, tokenizer, section, (EOS,), 4, CPU)
    assert caplog.messages == []


@pytest.fixture
def adapted(model: Any) -> PeftModel:
    """A LoRA with dropout and a B that is not zero, in training mode as the loop leaves it."""
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], lora_dropout=0.5)
    peft_model = get_peft_model(model, config)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return peft_model.train()


def test_an_adapter_is_used_without_its_dropout(adapted, prompts, tokenizer) -> None:
    first = generate(adapted, prompts, tokenizer, SECTION, (EOS,), 4, CPU)
    assert first == generate(adapted.train(), prompts, tokenizer, SECTION, (EOS,), 16, CPU)
    with adapted.disable_adapter():
        assert first != generate(adapted, prompts, tokenizer, SECTION, (EOS,), 4, CPU)


@pytest.mark.parametrize(("left", "second"), [(True, [0, 0, 8]), (False, [8, 0, 0])])
def test_padding_is_masked(left: bool, second: list[int]) -> None:
    batch = padded([(5, 6, 7), (8,)], pad_token_id=0, device=CPU, left=left)
    assert batch["input_ids"].tolist() == [[5, 6, 7], second]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [int(token > 0) for token in second]]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_decoder_writes_the_same_in_any_batch(name: str, models, tokenizer) -> None:
    """Its prompt has positions of its own, so padding must not move them; stop is its end token."""
    model = AutoModelForSeq2SeqLM.from_pretrained(models[name])
    prompts = [(5, 6, 7, 9, 12, EOS), (8, 30, EOS), (40, EOS)]
    alone = [generate(model, [prompt], tokenizer, SECTION, (EOS,), 1, CPU)[0] for prompt in prompts]
    assert generate(model, prompts, tokenizer, SECTION, (EOS,), 3, CPU) == alone
    forced = generate(model, prompts, tokenizer, SECTION, (EOS,), 3, CPU, forced_first_token=70)
    first = tokenizer.decode([70])
    assert all(text.startswith(first.strip()) for text in forced)


def test_a_prompt_may_hold_the_padding_token(model, prompts, tokenizer) -> None:
    """Models without a padding token of their own use the end token, which prompts contain."""
    prompt = (0, 17, 0, 23)
    alone = by_hand(model.eval(), prompt, (EOS,), 8)
    texts = generate(model, [prompt, prompts[1]], tokenizer, SECTION, (EOS,), 2, CPU)
    assert texts[0] == tokenizer.decode(alone, skip_special_tokens=True).strip()


def test_the_positions_of_the_model_may_be_used_to_the_last(model, tokenizer) -> None:
    section = EvaluationSection(max_new_tokens=6)
    assert len(generate(model, [(9,) * 250], tokenizer, section, (EOS,), 1, CPU)) == 1
    with pytest.raises(ModelError, match="6 after a prompt of 251 tokens"):
        generate(model, [(9,) * 251], tokenizer, section, (EOS,), 1, CPU)


def test_a_completion_beyond_the_positions_of_the_model_is_refused(model, tokenizer) -> None:
    with pytest.raises(ModelError) as error:
        generate(model, [(9,) * 4, (9,) * 200], tokenizer, EvaluationSection(), (EOS,), 1, CPU)
    assert str(error.value) == (
        "evaluation.max_new_tokens: 64 after a prompt of 200 tokens does not fit the model's 256 "
        "positions; lower it, or data.max_length."
    )


def test_no_prompts_need_no_model_call(tokenizer, model) -> None:
    assert generate(model, [], tokenizer, SECTION, (EOS,), 4, CPU) == []


def on_all_ranks(
    world_size: int, work: Callable[[int, Callable[[list], list]], list]
) -> list[list[Any]]:
    """What `work(rank, gather_objects)` returns on each rank, with the ranks run one by one."""
    lists: list[list[Any]] = []

    def remember(own: list[Any]) -> list[Any]:
        lists.append(own)
        return own * world_size

    for rank in range(world_size):
        work(rank, remember)
    assert len({len(own) for own in lists}) == 1, "a collective needs equal lengths"
    joined = [item for own in lists for item in own]
    return [work(rank, lambda own: joined) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 6, 11])
def test_ranks_share_the_prompts_and_know_all_texts(
    model, prompts, tokenizer, world_size, count
) -> None:
    picked = prompts[:count]
    section = EvaluationSection(max_new_tokens=3)

    def work(rank: int, gather_objects: Callable[[list], list]) -> list[str]:
        shared = (model, picked, tokenizer, section, (EOS,), 2, CPU)
        return generate_on_ranks(
            *shared, rank=rank, world_size=world_size, gather_objects=gather_objects, synced=False
        )

    alone = generate(model, picked, tokenizer, section, (EOS,), 4, CPU)
    assert on_all_ranks(world_size, work) == [alone] * world_size


def test_shares_are_equally_long_and_repeat_only_the_last_prompt() -> None:
    prompts = [(n,) for n in range(7)]
    assert [rank_share(prompts, rank, 3) for rank in range(3)] == [
        [(0,), (3,), (6,)],
        [(1,), (4,), (6,)],
        [(2,), (5,), (6,)],
    ]
    assert rank_share([], 0, 2) == []


def test_every_rank_refuses_what_one_rank_cannot_generate(model, tokenizer) -> None:
    """The long prompt is dealt to rank 1; rank 0 must not start and wait for it."""
    shared = (model, [(9,) * 4, (9,) * 200], tokenizer, EvaluationSection(), (EOS,), 1, CPU)
    for rank in range(2):
        with pytest.raises(ModelError, match="a prompt of 200 tokens"):
            generate_on_ranks(
                *shared, rank=rank, world_size=2, gather_objects=lambda own: own * 2, synced=False
            )


@pytest.fixture
def lone_group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("lone_group")
@pytest.mark.parametrize("synced", [True, False])
def test_ranks_wait_for_each_other_only_where_asked(
    model, prompts, tokenizer, monkeypatch, synced
) -> None:
    """Sharded models need all ranks in every call; others finish by themselves, to equal texts."""
    expected = generate(model, prompts, tokenizer, SECTION, (EOS,), 4, CPU)
    asked = []
    all_reduce = torch.distributed.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return all_reduce(*args, **kwargs)

    monkeypatch.setattr(torch.distributed, "all_reduce", counted)
    shared = (model, prompts, tokenizer, SECTION, (EOS,), 4, CPU)
    texts = generate_on_ranks(
        *shared, rank=0, world_size=1, gather_objects=lambda own: own, synced=synced
    )
    assert texts == expected
    assert bool(asked) == synced
