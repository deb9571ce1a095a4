"""Pretrains the embedded decoder from scratch on generated text; two CPU cores, no network.

python peftune/embedded/pretrain_decoder.py [--minutes 20]
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from peftune.allocator import keep_freed_memory
from peftune.embedded.make_dialogues import make_row, make_splits
from peftune.embedded.narration import make_story
from peftune.embedded.pretraining import SEED, adamw, fit, minutes_asked, save, train_bpe
from peftune.embedded.writing import normalized

FOLDER = Path(__file__).resolve().parent / "decoder"
PAD, END, TURN_START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY, WINDOW, BATCH = 4096, 256, 16
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def documents(seed: int) -> Iterator[str]:
    """Endless generated documents: dialogues without summaries, and stories."""
    kept_out = {normalized(row.dialogue) for rows in make_splits().values() for row in rows}
    rng = random.Random(f"pretraining {seed}")
    while True:
        text = make_row(rng, True).dialogue if rng.random() < 0.5 else make_story(rng)
        if normalized(text) not in kept_out:
            yield text


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the tokens of a chat."""
    bpe = train_bpe(documents(0), VOCABULARY, [PAD, END, TURN_START, TURN_END])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, model_max_length=512
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def windows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches (BATCH, WINDOW) of documents laid end to end."""
    source = documents(seed)
    tokens: list[int] = []
    while True:
        while len(tokens) < BATCH * WINDOW:
            for ids in tokenizer([next(source) for _ in range(200)])["input_ids"]:
                tokens += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(tokens[: BATCH * WINDOW]).view(BATCH, WINDOW)
        tokens = tokens[BATCH * WINDOW :]


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """About 3.2 million parameters; every linear layer is a multiple of 64 wide."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def window_loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss in nats a token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())


def main() -> None:
    """Tokenizer, model, training, folder."""
    keep_freed_memory()
    minutes = minutes_asked()
    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    held_out = next(windows(tokenizer, 1))
    batches = windows(tokenizer, 2)
    optimizers = [adamw(model.parameters(), weight_decay=0.1)]
    curve = fit(model, optimizers, batches, held_out, window_loss, torch.Tensor.numel, minutes)
    save(model, tokenizer, curve, FOLDER)


if __name__ == "__main__":
    main()
