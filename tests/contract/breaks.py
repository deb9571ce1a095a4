"""Ways to change the loop: breaks of the contract, those of other trainers among them, and one way of
padding that must change nothing."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from peftune.data.collate import Batching
from peftune.engines.engine import Engine
from peftune.model import attention
from peftune.training import loop, loss
from peftune.training.draws import RowDraws


def divide_by_micro_batches(patch: pytest.MonkeyPatch) -> None:
    """A mean over the means of the micro-batches."""

    def mean_of_means(
        training: loop.Training, step: int, batches: list[Any], target_tokens: int
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            draws = loop.row_draws(training.seed, step, batch)
            own = max(loss.count_targets(batch["labels"], "causal"), 1) * len(batches)
            nll = loop.training_nll_sum(training, batch, draws) / own
            training.engine.backward(nll)
            total += nll.detach().double()
        return total * target_tokens

    patch.setattr(loop, "accumulate", mean_of_means)


def drop_the_last_rows(patch: pytest.MonkeyPatch) -> None:
    """Only full steps, as `drop_last` has it."""
    whole = loop.step_rows
    patch.setattr(
        loop, "step_rows", lambda *of: whole(*of) if len(whole(*of)) == 6 else whole(*of)[:2]
    )


def count_padding(patch: pytest.MonkeyPatch) -> None:
    """The step is divided by all tokens, learnt or not."""
    patch.setattr(loop, "count_targets", lambda labels, objective: labels.numel())


def learn_padding(patch: pytest.MonkeyPatch) -> None:
    """Padding has the label of the padding token."""
    collate = Batching.collate

    def learnt(self: Batching, some: Any) -> Any:
        batch = collate(self, some)
        return {**batch, "labels": batch["labels"].masked_fill(batch["attention_mask"] == 0, 0)}

    patch.setattr(Batching, "collate", learnt)


def attend_to_padding(patch: pytest.MonkeyPatch) -> None:
    """On the left, where a causal model would look at it."""
    collate = Batching.collate

    def leaky(self: Batching, some: Any) -> Any:
        batch = collate(self, some)
        sizes = batch["attention_mask"].sum(dim=1)
        moved = {
            name: torch.stack(
                [one.roll(len(one) - int(size)) for one, size in zip(x, sizes, strict=True)]
            )
            for name, x in batch.items()
        }
        return {**moved, "attention_mask": torch.ones_like(batch["attention_mask"])}

    patch.setattr(Batching, "collate", leaky)


def draw_dropout_by_batch(patch: pytest.MonkeyPatch) -> None:
    """torch's own stream, as in every other trainer."""
    patch.setattr(RowDraws, "kept", lambda self, like, p: torch.rand(like.shape) >= p)
    patch.setattr(loop, "require_no_other_draws", lambda before, after: None)


def repeat_rows_for_even_batches(patch: pytest.MonkeyPatch) -> None:
    """A short step is filled up from its start."""
    whole = loop.step_rows
    patch.setattr(loop, "step_rows", lambda *of: (whole(*of) * 6)[:6])


def average_over_ranks(patch: pytest.MonkeyPatch) -> None:
    """Each rank divides by its own targets, and the engine takes the mean of the ranks."""
    count_step = loop.count_step

    def own(engine: Engine, batches: Any, objective: Any) -> tuple[int, int]:
        targets = sum(loss.count_targets(batch["labels"], objective) for batch in batches)
        return max(targets, 1) * engine.ranks.world_size, count_step(engine, batches, objective)[1]

    patch.setattr(loop, "count_step", own)


def attend_across_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows without padding that see each other."""
    patch.setattr(attention, "row_by_row", attention_across_rows)


def attention_across_rows(
    reading: Any, query: Any, key: Any, value: Any, bias: Any, causal: bool, *_: Any
) -> list[torch.Tensor]:
    """All rows as if they were one."""
    shared = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(shared, dim=1) for one in (key, value))
    return [functional.scaled_dot_product_attention(query, key, value, is_causal=causal)]


def pad_left(patch: pytest.MonkeyPatch) -> None:
    """As generation does, with the positions that generation gives."""
    collate = Batching.collate

    def left(self: Batching, rows: Any) -> Any:
        batch = collate(self, rows)
        width = batch["input_ids"].shape[1]
        gaps = [width - int(size) for size in batch["attention_mask"].sum(dim=1)]
        moved = {
            name: torch.stack([one.roll(gap) for one, gap in zip(x, gaps, strict=True)])
            for name, x in batch.items()
        }
        return {**moved, "position_ids": (moved["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)}

    patch.setattr(Batching, "collate", left)
