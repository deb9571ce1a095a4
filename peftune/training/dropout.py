"""Dropout whose masks belong to rows, put in the place of torch's for a forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from peftune.training.draws import RowDraws

SHARED_DROPOUT = "pos_dropout"
"""DeBERTa's dropout of relative positions, whose embeddings all rows share."""


class _Dropout(TorchFunctionMode):
    """Inside, the model's dropout takes its numbers from `draws`."""

    def __init__(self, draws: RowDraws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.dropout:
            return self._dropout(*args, **kwargs)
        if function is functional.scaled_dot_product_attention and kwargs.get("dropout_p"):
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _dropout(
        self, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if p == 0.0 or not training:
            return x
        return torch.where(self.draws.kept(x, p), x / (1.0 - p), 0.0)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """What torch documents for scaled_dot_product_attention, whose kernels draw for themselves."""
        if enable_gqa:
            shared = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(shared, dim=-3) for x in (key, value))
        scores = (
            query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        )
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None:
            allowed = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if allowed else scores + attn_mask
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return self._dropout(weights, dropout_p).to(value.dtype) @ value


_active: ContextVar[RowDraws | None] = ContextVar("active", default=None)


@contextmanager
def dropout_from(draws: RowDraws) -> Iterator[None]:
    """Inside, dropout takes its numbers from `draws`."""
    token = _active.set(draws)
    try:
        with _Dropout(draws):
            yield
    finally:
        _active.reset(token)


def keeping(x: torch.Tensor, p: float) -> torch.Tensor:
    """Where dropout with probability `p` leaves a value of `x`, bool, for code that drops by itself."""
    draws = _active.get()
    return torch.rand(x.shape, device=x.device) >= p if draws is None else draws.kept(x, p)


def drawing_now() -> RowDraws | None:
    """Where dropout takes its numbers from at this moment, for layers that are computed again later."""
    draws = _active.get()
    return draws and replace(draws)


def has_dropout(model: PeftModel) -> bool:
    """Whether anything in the model drops values while training."""
    if any(module.p > 0 for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        return True
    # Some models read a probability from their configuration and have no module for it.
    return _is_set(_config(model), "drop")


def has_layerdrop(model: PeftModel) -> bool:
    """Whether the model's own training skips layers, which `draw_by_rows` switched off."""
    return _is_set(_config(model), "layerdrop")


def _config(model: PeftModel) -> dict[str, Any]:
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return base.config.to_dict()


def _is_set(config: dict[str, Any], word: str) -> bool:
    """Whether a share whose name holds `word` is more than 0. Names may be numbers, of labels."""
    return any(
        _is_set(value, word)
        if isinstance(value, dict)
        else word in str(name) and isinstance(value, float) and value > 0
        for name, value in config.items()
    )


def draw_by_rows(model: torch.nn.Module) -> None:
    """Prepare a loaded model for `dropout_from`, once.

    LayerDrop (Fan, Grave & Joulin 2019, arXiv:1909.11556) skips a layer for a whole batch and so
    cannot belong to rows: it is switched off. Dropout of what all rows of a step share draws one mask
    for the step.
    """
    for module in model.modules():
        if "layerdrop" in vars(module):
            vars(module)["layerdrop"] = 0.0
    modules = dict(model.named_modules())
    for name in modules:
        if name.endswith(f".{SHARED_DROPOUT}"):
            modules[name].register_forward_pre_hook(_mark_shared(True))
            # The positions go through adapted layers next; the weights dropped then are of rows again.
            following = modules[name.removesuffix(SHARED_DROPOUT) + "dropout"]
            following.register_forward_pre_hook(_mark_shared(False))


def _mark_shared(shared: bool) -> Callable[..., None]:
    def mark(*_: Any) -> None:
        draws = _active.get()
        if draws is not None:
            draws.shared = shared

    return mark
