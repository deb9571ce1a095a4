"""Noise on input embeddings while training (NEFTune, Jain et al. 2023, arXiv:2310.05914)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from peftune.training.draws import RowDraws


@contextmanager
def embedding_noise(
    embedding: torch.nn.Module, alpha: float | None, own_BT: torch.Tensor, draws: RowDraws
) -> Iterator[None]:
    """Inside the context, add uniform noise in ±alpha / sqrt(tokens * width) to each row's embeddings.

    `own_BT` says how many tokens the row has that a token belongs to, and 0 for padding, which
    changes neither the scale nor itself.
    """
    if alpha is None:
        yield
        return
    handle = embedding.register_forward_hook(
        lambda _module, _inputs, output_BTD: output_BTD + _noise(output_BTD, alpha, own_BT, draws)
    )
    try:
        yield
    finally:
        handle.remove()


def _noise(
    embedded_BTD: torch.Tensor, alpha: float, own_BT: torch.Tensor, draws: RowDraws
) -> torch.Tensor:
    width = embedded_BTD.shape[-1]
    scale_BT = alpha / (own_BT.clamp(min=1) * width).sqrt() * (own_BT > 0)
    uniform_BTD = draws.uniform(embedded_BTD) * 2.0 - 1.0
    return (uniform_BTD * scale_BT[..., None]).to(embedded_BTD.dtype)
