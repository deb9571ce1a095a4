"""Completions of prompts, batched by length; the same texts for any batch size and rank count."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from peftune.errors import ModelError
from peftune.evaluation.section import EvaluationSection
from peftune.model.positions import positions

Prompt = Sequence[int]


def generate(
    model: Any,
    prompts: Sequence[Prompt],
    tokenizer: Any,
    section: EvaluationSection,
    stop_ids: Sequence[int],
    batch_size: int,
    device: torch.device,
    synced: bool = False,
    forced_first_token: int | None = None,
) -> list[str]:
    """The completion of each prompt up to its first stop token, outer white space removed.

    `synced` keeps all ranks calling the model until the last one has finished, which sharded
    models need; every rank must then have the same number of prompts. Raises ModelError when prompt
    and completion cannot fit the model's positions.
    """
    require_room(model, prompts, section)
    config = generation_config(section, stop_ids, tokenizer.pad_token_id)
    encodes = model.config.is_encoder_decoder
    if encodes:
        config.decoder_start_token_id = model.config.decoder_start_token_id
        config.forced_bos_token_id = forced_first_token
    model.eval()
    # Longest first: a batch that is too large for the device fails at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        picked = order[start : start + batch_size]
        batch = padded([prompts[i] for i in picked], tokenizer.pad_token_id, device, not encodes)
        with torch.no_grad(), own_settings(model, config):
            ids = model.generate(**batch, generation_config=config, synced_gpus=synced)
        # A decoder goes on behind the prompt; an encoder-decoder begins with its start token.
        begins = 1 if encodes else batch["input_ids"].shape[1]
        for index, completion in zip(picked, ids[:, begins:], strict=True):
            texts[index] = completion_text(completion.tolist(), tokenizer, stop_ids)
    return texts


def completion_text(ids: Sequence[int], tokenizer: Any, stop_ids: Sequence[int]) -> str:
    """The text before the first stop token, which need not be a special token of the tokenizer."""
    kept = list(takewhile(lambda token: token not in stop_ids, ids))
    return tokenizer.decode(kept, skip_special_tokens=True).strip()


def generation_config(
    section: EvaluationSection, stop_ids: Sequence[int], pad_token_id: int
) -> GenerationConfig:
    """Everything that decides the text, from the recipe alone."""
    return GenerationConfig(
        max_new_tokens=section.max_new_tokens,
        num_beams=section.num_beams,
        do_sample=False,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_token_id,
        use_cache=True,
    )


@contextmanager
def own_settings(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Inside the context the checkpoint's own generation settings do not fill gaps in ours."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    saved, base.generation_config = base.generation_config, config
    try:
        yield
    finally:
        base.generation_config = saved


def padded(
    prompts: Sequence[Prompt], pad_token_id: int, device: torch.device, left: bool
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of shape (rows, longest)."""
    longest = max(map(len, prompts))

    def filled(row: Sequence[int], value: int) -> list[int]:
        padding = [value] * (longest - len(row))
        return padding + list(row) if left else list(row) + padding

    ids = [filled(prompt, pad_token_id) for prompt in prompts]
    mask = [filled([1] * len(prompt), 0) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def require_room(model: Any, prompts: Sequence[Prompt], section: EvaluationSection) -> None:
    """Raise ModelError when the longest prompt leaves no room for `max_new_tokens`."""
    limit = positions(model.config)
    if limit is None:
        return
    longest = max(map(len, prompts), default=0)
    if model.config.is_encoder_decoder:
        # The prompt has positions of its own.
        if section.max_new_tokens > limit:
            raise ModelError(
                f"evaluation.max_new_tokens: {section.max_new_tokens} does not fit the model's "
                f"{limit} positions; lower it."
            )
    elif longest + section.max_new_tokens > limit:
        raise ModelError(
            f"evaluation.max_new_tokens: {section.max_new_tokens} after a prompt of {longest} tokens "
            f"does not fit the model's {limit} positions; lower it, or data.max_length."
        )


def generate_on_ranks(
    model: Any,
    prompts: Sequence[Prompt],
    tokenizer: Any,
    section: EvaluationSection,
    stop_ids: Sequence[int],
    batch_size: int,
    device: torch.device,
    *,
    rank: int,
    world_size: int,
    gather_objects: Callable[[list[Any]], list[Any]],
    synced: bool,
    forced_first_token: int | None = None,
) -> list[str]:
    """`generate` with the prompts dealt out to the ranks; every rank gets all texts, in order.

    `gather_objects` turns the lists of all ranks into one list in rank order.
    """
    # Before the shares differ, so that all ranks stop or none does.
    require_room(model, prompts, section)
    own = rank_share(prompts, rank, world_size)
    texts = generate(
        model, own, tokenizer, section, stop_ids, batch_size, device, synced, forced_first_token
    )
    gathered = gather_objects(texts)
    per_rank = len(own)
    return [
        gathered[(index % world_size) * per_rank + index // world_size]
        for index in range(len(prompts))
    ]


def rank_share(prompts: Sequence[Prompt], rank: int, world_size: int) -> list[Prompt]:
    """Every `world_size`-th prompt; short shares repeat the last prompt so that all are equal."""
    most = -(-len(prompts) // world_size)
    own = list(prompts[rank::world_size])
    return own + list(prompts[-1:]) * (most - len(own))
