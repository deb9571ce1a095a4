"""Dropout whose masks belong to rows, put in the place of torch's for a forward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def checkpoint_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` of torch.utils.checkpoint: a recomputed layer draws what it drew before."""
    draws = _active.get()
    if draws is None:
        return nullcontext(), nullcontext()
    return nullcontext(), dropout_from(replace(draws))


def has_dropout(model: PeftModel) -> bool:
    """Whether anything in the model drops values while training."""
    if any(module.p > 0 for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        return True
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return _drops(base.config.to_dict())


def _drops(config: dict[str, Any]) -> bool:
    """Some models read a probability from their configuration and have no module for it. Names may be
    numbers, of labels."""
    return any(
        _drops(value)
        if isinstance(value, dict)
        else "drop" in str(name) and isinstance(value, float) and value > 0
        for name, value in config.items()
    )


def stop_layerdrop(model: torch.nn.Module) -> bool:
    """Switch LayerDrop off (Fan, Grave & Joulin 2019, arXiv:1909.11556), which skips a layer for a whole
    batch and so cannot belong to rows. Returns whether it was on."""
    dropping = [m for m in model.modules() if vars(m).get("layerdrop", 0.0) > 0.0]
    for module in dropping:
        vars(module)["layerdrop"] = 0.0
    return bool(dropping)


@contextmanager
def shared_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Inside, dropout of what all rows of a step share draws one mask for the step."""

    def mark(shared: bool) -> Callable[..., None]:
        def set_mark(*_: Any) -> None:
            draws = _active.get()
            if draws is not None:
                draws.shared = shared

        return set_mark

    modules = dict(model.named_modules())
    shared = [name for name in modules if name.endswith(f".{SHARED_DROPOUT}")]
    hooks = [modules[name].register_forward_pre_hook(mark(True)) for name in shared]
    # The positions go through adapted layers next; then weights are dropped, which are of rows again.
    ends = [name.removesuffix(SHARED_DROPOUT) + "dropout" for name in shared]
    hooks += [modules[name].register_forward_pre_hook(mark(False)) for name in ends]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
