"""What a model holds while it writes: keys and values of every token so far."""

import inspect
from typing import Any

import torch

from peftune.engines.engine import Engine
from peftune.forecast.tracing import Trace


@torch.no_grad()
def writing_bytes(engine: Engine, lengths: list[int], new_tokens: int, trace: Trace) -> int:
    """The most bytes beside the weights, from reading prompts of these lengths to the last new token.

    A step of writing reads the cache and makes it anew one layer at a time.
    """
    base: Any = engine.module.get_base_model()
    engine.module.eval()
    width, pairs = max(lengths), base.config.is_encoder_decoder
    inputs: dict[str, Any] = {"input_ids": torch.ones(len(lengths), width, dtype=torch.int64)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if pairs:
        inputs["decoder_input_ids"] = torch.ones(len(lengths), new_tokens, dtype=torch.int64)
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        inputs["logits_to_keep"] = 1
    before = trace.parts["activations"]
    with trace.phase("activations") as reading, engine.autocast():
        outputs = engine.module(**inputs, use_cache=True)
        cache = outputs.past_key_values
        del outputs
    held = trace.parts["activations"] - before
    del cache
    layers = base.config.get_text_config(decoder=True).num_hidden_layers
    whole = held if pairs else held * (width + new_tokens) // width
    return max(reading.parts["activations"] - before, whole + whole // layers)
