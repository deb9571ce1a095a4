"""The output layer of a language model, for the tokens that are learnt alone.

A vocabulary is wide and most tokens of a prompt are not learnt, so scores of all tokens would be the
largest tensor of a training by far. A frozen output layer never keeps any: the gradient of the loss is
formed at once, chunk by chunk (as in Liger Kernel's fused linear cross entropy, Hsu et al. 2024,
arXiv:2410.10989). N learnt tokens, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from peftune.model.devices import autocast_dtype, device_kind
from peftune.model.frozen_products import fewer_common_rows, product, product_dtype

CHUNK, GPU_CHUNK = 2**23, 2**26
"""Scores that are held at a time; a GPU needs some hundred rows to multiply as fast as it can."""
FP16_SCALE = 1024.0
"""Keeps gradients of improbable tokens from vanishing in float16."""


@dataclass
class Wanted:
    """The tokens of a batch whose scores are wanted."""

    places: torch.Tensor
    """Where they stand in the flattened batch, int64 (N,)."""
    selected: bool = field(default=False, kw_only=True)
    """Whether the output layer was asked for these alone."""


@dataclass
class Learnt(Wanted):
    """What is learnt of a batch: of its scores only the loss is wanted."""

    labels: torch.Tensor
    """The tokens to predict there, int64 (N,)."""
    label_smoothing: float
    nll_sum: torch.Tensor | None = None
    """Their summed loss, where the output layer computed it."""


_wanted: ContextVar[Wanted | None] = ContextVar("wanted", default=None)


@contextmanager
def scoring(wanted: Wanted) -> Iterator[None]:
    """Inside, a model prepared by `supervise` scores only what is wanted."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def supervise(model: PreTrainedModel) -> None:
    """Prepare a model that predicts tokens, with its adapter, for `scoring`."""
    head = model.get_output_embeddings()
    if is_plain(model, head):
        # On the instance: engines and hooks keep seeing the module that they know.
        vars(head)["forward"] = partial(loss_of_learnt, head, head.forward)
    else:
        head.register_forward_pre_hook(select_wanted)


def is_plain(model: PreTrainedModel, head: torch.nn.Module) -> bool:
    """Whether the scores are a frozen linear function, and nothing is done to them afterwards."""
    if type(head) is not torch.nn.Linear or any(p.requires_grad for p in head.parameters()):
        return False
    bias = dict(model.named_buffers()).get("final_logits_bias")
    if bias is not None and bias.any():
        return False
    return not any(
        ("logit" in name or "lm_head" in name) and type(value) in (int, float) and value != 1
        for name, value in model.config.get_text_config(decoder=True).to_dict().items()
    )


def select_wanted(head: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    """Before an output layer: the hidden states of what is wanted, (1, N, D)."""
    wanted = _wanted.get()
    if wanted is None:
        return None
    wanted.selected = True
    hidden, *others = args
    return hidden.flatten(0, -2).index_select(0, wanted.places)[None], *others


def loss_of_learnt(
    head: torch.nn.Linear, forward: Callable[..., torch.Tensor], hidden: torch.Tensor
) -> torch.Tensor:
    """In place of the head's own `forward`: notes the loss of what is learnt and returns no scores,
    (1, 0, V), or else scores."""
    wanted = _wanted.get()
    if wanted is None:
        return forward(hidden)
    (chosen,) = select_wanted(head, (hidden,))[:1]
    if not isinstance(wanted, Learnt):
        return forward(chosen)
    weight, bias = _computed(head.weight, hidden), head.bias
    wanted.nll_sum, nothing = _LinearCrossEntropy.apply(
        chosen[0],
        weight.detach(),
        None if bias is None else _computed(bias, hidden).detach(),
        wanted.labels,
        wanted.label_smoothing,
    )
    return nothing


def _computed(weight: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The weight as autocast would give it to each product, cast once."""
    dtype = autocast_dtype(hidden)
    return weight if dtype is None else weight.to(dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of a linear layer's scores, and an empty tensor (1, 0, V) that hooks of
    sharded engines find in a model's output."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        label_smoothing: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
        dtype, wide_VD = weight_VD.dtype, weight_VD.to(product_dtype(weight_VD))
        gradients = []
        chunk = CHUNK if device_kind(hidden_ND) == "cpu" else GPU_CHUNK
        rows = fewer_common_rows(max(1, chunk // len(weight_VD)))
        for hidden, labels in zip(hidden_ND.split(rows), labels_N.split(rows), strict=True):
            logits = product(hidden, wide_VD, bias_V).to(dtype)
            log_p = logits.log_softmax(-1, dtype=torch.float32)
            total += smoothed_nll(log_p, labels, label_smoothing)
            if ctx.needs_input_grad[0]:
                slope = logits_gradient(log_p, labels, label_smoothing)
                gradients.append(_hidden_gradient(slope, logits, wide_VD, hidden))
        ctx.save_for_backward(*gradients)
        ctx.dtype, ctx.shape = hidden_ND.dtype, hidden_ND.shape
        return total.float(), hidden_ND.new_zeros(1, 0, len(weight_VD))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        found = [(gradient * grad).to(ctx.dtype) for gradient in ctx.saved_tensors]
        whole = torch.cat(found) if found else grad.new_zeros(ctx.shape, dtype=ctx.dtype)
        return whole, None, None, None, None


def smoothed_nll(log_p: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Summed loss as `nll_sum` defines it, from log probabilities (N, V)."""
    total = -log_p.gather(1, labels[:, None]).sum()
    return total if smoothing == 0 else (1 - smoothing) * total - smoothing * log_p.mean(-1).sum()


def logits_gradient(log_p: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Gradient of `smoothed_nll` by the scores, in the place of `log_p`."""
    slope = log_p.exp_()
    if smoothing:
        slope -= smoothing / slope.shape[1]
    rows = torch.arange(len(labels), device=labels.device)
    slope[rows, labels] -= 1 - smoothing
    return slope


def _hidden_gradient(
    slope: torch.Tensor, logits: torch.Tensor, weight: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    if logits.dtype != torch.float16:
        return product(slope.to(logits.dtype), weight.T).to(hidden.dtype)
    return ((slope * FP16_SCALE).to(weight.dtype) @ weight).float() / FP16_SCALE
