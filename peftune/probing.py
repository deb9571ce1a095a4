"""Scores of a run's model for a few of its rows, which every artefact of the run has to repeat."""

import numpy as np
import torch

from peftune.context import Run
from peftune.data.collate import Batch
from peftune.data.rows import IGNORED, Rows
from peftune.engines.engine import Engine
from peftune.export.parity import MOST_SCORES, MOST_TOKENS, Probe, Tensors
from peftune.export.plain_scores import INPUTS, at_places
from peftune.objectives import OBJECTIVES, ObjectiveName
from peftune.training.loop import named_batch, to_device
from peftune.training.loss import model_logits, scores_at

SEARCHED = 256
"""Rows among which short ones are looked for."""


@torch.no_grad()
def model_scores(
    engine: Engine,
    batch: Batch,
    objective: ObjectiveName,
    model: torch.nn.Module | None = None,
    padded: bool = False,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scores of a batch in eval mode, float32 on the CPU, by the engine's model or another; of a
    vocabulary only those of the tokens at `places`, if they are given."""
    module = engine.module if model is None else model
    module.eval()
    with engine.autocast():
        if places is None:
            return model_logits(module, batch, objective, padded).float().cpu()
        return scores_at(module, batch, objective, places, padded).float().cpu()


def vocabulary_of(engine: Engine) -> int:
    """How many scores a token has, of a model that predicts tokens."""
    return int(engine.module.config.get_text_config(decoder=True).vocab_size)


class Probing:
    """A few rows of a run: of the test split, of the validation split where there is none, or of the
    training split."""

    def __init__(self, context: Run, engine: Engine) -> None:
        splits = context.prepared.rows
        rows = splits["test"] or splits["validation"] or splits["train"]
        batching = context.prepared.batching
        self.engine, self.objective = engine, batching.objective
        drawn = [batching.drawn(rows[index], index) for index in short_rows(rows)]
        self.batch = named_batch(batching, drawn, [*range(len(drawn))])
        self.places = self._places()

    def scores(self) -> torch.Tensor:
        """By the model as it is now, float32 (places, outputs); all ranks compute the same."""
        batch = to_device(self.batch, self.engine.ranks.device)
        if OBJECTIVES[self.objective].generates:
            flat = self.places["rows"] * batch["labels"].shape[1] + self.places["tokens"]
            wanted = flat.to(self.engine.ranks.device)
            return model_scores(self.engine, batch, self.objective, places=wanted)
        found = model_scores(self.engine, batch, self.objective)
        return at_places(found.transpose(1, 2) if self.objective == "span" else found, self.places)

    def probe(self, adapted: torch.Tensor, base: torch.Tensor) -> Probe:
        """What is kept of the scores of both models."""
        inputs = {name: self.batch[name] for name in INPUTS if name in self.batch}
        return Probe(inputs, self.places, adapted, base)

    def _places(self) -> Tensors:
        """Evenly over the tokens that are no padding, or all rows where a row has one score."""
        if self.objective in ("label", "labels", "value"):
            return {"rows": torch.arange(len(self.batch["input_ids"]))}
        read = self.batch["attention_mask"] == 1
        if self.objective in ("seq2seq", "corrupted"):
            read = self.batch["labels"] != IGNORED
        every = read.nonzero()
        count = len(every)
        if OBJECTIVES[self.objective].generates:
            count = min(count, max(1, MOST_SCORES // vocabulary_of(self.engine)))
        chosen = every[torch.linspace(0, len(every) - 1, count).round().long()]
        return {"rows": chosen[:, 0].contiguous(), "tokens": chosen[:, 1].contiguous()}


def short_rows(rows: Rows) -> list[int]:
    """The shortest row, and as many of the next as `MOST_TOKENS` takes."""
    lengths = rows.lengths()[:SEARCHED].sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    fitting = int((lengths[order].cumsum() <= MOST_TOKENS).sum())
    return [int(index) for index in order[: max(1, fitting)]]
