"""An adapted linear layer as one function: its input is kept once, in its own dtype.

peft converts the input to the adapter's dtype anew for each layer, and keeps every copy for the
backward pass; it adds what the adapter makes to what the layer makes in memory of its own, and autograd
adds their gradients in more. T tokens, K inputs, N outputs, R rank.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from peftune.model.devices import autocast_dtype
from peftune.training.cheap_inputs import Again, Origin, origin_of, remember_origins
from peftune.training.dropout import keeping
from peftune.training.low_rank import (
    AdaptedLinears,
    Facts,
    LowRankUpdate,
    Reader,
    has_dense_weight,
    product_format,
)
from peftune.training.shared_inputs import Together, layers_together
from peftune.training.split_low_rank import SplitAdaptedLinears, SplitLowRankUpdate
from peftune.training.split_products import is_split

ADAPTER = "default"
LINEAR = ("Linear", "Linear4bit", "Linear8bitLt")
"""peft's classes for adapted linear layers; some exist only where bitsandbytes is installed."""


def fuse(model: PeftModel, keeps_inputs: bool = False) -> int:
    """Let the plain LoRA layers of `model` compute their update here; how many these are.

    Others (DoRA, embeddings, experts) keep peft's own code, and so does what is saved. `keeps_inputs`:
    even those that could be made again, because the weights of a norm may be in shards by then.
    """
    plain = [module for module in model.modules() if is_plain(module)]
    if plain and not keeps_inputs:
        remember_origins(model)
    again = Again()
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    for together in layers_together(base, plain):
        for layer in together.layers:
            # On the instance: engines and peft keep seeing the module that they know.
            vars(layer)["forward"] = partial(forward, layer, again, together)
    return len(plain)


def has_fused(model: torch.nn.Module) -> bool:
    """Whether any layer of a model computes its update here."""
    return any(
        "forward" in vars(module) for module in model.modules() if isinstance(module, LoraLayer)
    )


def is_plain(module: torch.nn.Module) -> bool:
    """Whether a module adds B·A·x times a number to what its base layer makes of x, and no more than
    dropout of x before it."""
    if type(module).__name__ not in LINEAR or not isinstance(module, LoraLayer):
        return False
    weights = (module.lora_A[ADAPTER], module.lora_B[ADAPTER])
    return (
        all(type(weight) is torch.nn.Linear and weight.bias is None for weight in weights)
        and isinstance(module.lora_dropout[ADAPTER], (torch.nn.Identity, torch.nn.Dropout))
        and ADAPTER not in module.lora_variant
    )


def forward(
    layer: Any, again: Again, together: Together, x: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """In place of the layer's forward."""
    if layer.disable_adapters or layer.merged or autocast_dtype(x) is not None:
        return type(layer).forward(layer, x, *args, **kwargs)
    made = together.taken(layer, x)
    if made is not None:
        return made
    origin = origin_of(x)
    kept = kept_of(layer, x)
    if not has_dense_weight(layer.base_layer, x):
        update: Any = SplitLowRankUpdate if are_split([layer], x) else LowRankUpdate
        facts = facts_of([layer], again, origin)
        result = layer.base_layer(x, *args, **kwargs)
        return update.apply(result, x, kept, facts, *weights_of([layer]), *origin.sources)
    readers = readers_of(layer, together, x)
    function: Any = SplitAdaptedLinears if are_split(readers, x) else AdaptedLinears
    facts = facts_of(readers, again, origin)
    first, *others = function.apply(x, kept, facts, *weights_of(readers), *origin.sources)
    together.keep(x, others)
    return first


def readers_of(layer: Any, together: Together, x: torch.Tensor) -> Sequence[Any]:
    """The layer and those that read its input after it, where all can be computed together: of one rank,
    and none drops something of its own."""
    found = together.from_(layer)
    alike = all(
        has_dense_weight(one.base_layer, x)
        and not dropped_share(one)
        and one.r[ADAPTER] == layer.r[ADAPTER]
        for one in found
    )
    return found if alike else [layer]


def are_split(layers: Sequence[Any], x: torch.Tensor) -> bool:
    """Whether updates of these layers are computed in parts: where they multiply in the format of `x`."""
    return all(
        is_split(x, layer.lora_A[ADAPTER].weight)
        and product_format(layer.base_layer, x.dtype) is x.dtype
        for layer in layers
    )


def facts_of(layers: Sequence[Any], again: Again, origin: Origin) -> Facts:
    """What a function for these layers knows."""
    readers = tuple(Reader(layer.base_layer, layer.scaling[ADAPTER]) for layer in layers)
    return Facts(readers, 1.0 / (1.0 - dropped_share(layers[0])), again, origin.made_by)


def weights_of(layers: Sequence[Any]) -> Iterator[torch.Tensor]:
    """A and B of each."""
    for layer in layers:
        yield from (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)


def kept_of(layer: Any, x: torch.Tensor) -> torch.Tensor | None:
    """Where dropout leaves the layer's input, if it drops any of it now."""
    share = dropped_share(layer)
    return keeping(x, share) if share else None


def dropped_share(layer: Any) -> float:
    """How much of its input a layer drops before its A."""
    module = layer.lora_dropout[ADAPTER]
    return module.p if isinstance(module, torch.nn.Dropout) and module.training else 0.0
