"""Noise on input embeddings while training (NEFTune, Jain et al. 2023, arXiv:2310.05914)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def embedding_noise(
    embedding: torch.nn.Module, alpha: float | None, attention_mask_BT: torch.Tensor
) -> Iterator[None]:
    """Inside the context, add uniform noise in ±alpha / sqrt(tokens * width) to each row's embeddings.

    `tokens` are the row's own, so padding changes neither the scale nor the padded positions.
    """
    if alpha is None:
        yield
        return
    handle = embedding.register_forward_hook(
        lambda _module, _inputs, output_BTD: (
            output_BTD + _noise(output_BTD, alpha, attention_mask_BT)
        )
    )
    try:
        yield
    finally:
        handle.remove()


def _noise(embedded_BTD: torch.Tensor, alpha: float, mask_BT: torch.Tensor) -> torch.Tensor:
    width = embedded_BTD.shape[-1]
    tokens_B = mask_BT.sum(dim=1).clamp(min=1)
    scale_B11 = (alpha / (tokens_B * width).sqrt()).to(embedded_BTD.dtype)[:, None, None]
    uniform_BTD = torch.empty_like(embedded_BTD).uniform_(-1.0, 1.0)
    return uniform_BTD * scale_B11 * mask_BT[..., None].to(embedded_BTD.dtype)
