"""Checks of the rows."""

import numpy as np

from peftune.data.rows import IGNORED, EncodedRow
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial

LOOKED_AT = 1000
"""Training rows that are looked at, spread over all of them."""


def end_token(trial: Trial) -> Finding:
    """The model learns to stop: what is learnt last in a row ends generation."""
    prepared, rows = trial.context.prepared, trial.training.rows
    ends = end_ids(trial) & set(prepared.end_ids)
    picked = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))
    drawn = trial.training.batching.drawn
    without = [
        i for i in picked.tolist() if not ends_in(drawn(rows[i], i, 0), ends, last_learnt(trial))
    ]
    # Of a text cut into windows only the last window has an end.
    allowed = len(picked) - 1 if trial.context.recipe.data.overlong == "split" else 0
    numbers = {"rows": len(picked), "without": len(without), "end tokens": len(ends)}
    if len(without) > allowed:
        token = prepared.tokenizer.eos_token
        return Finding(
            numbers,
            f"{len(without)} of {len(picked)} rows do not learn an end token (the first is row "
            f"{rows[without[0]].row + 1}), so the model would never stop; let the chat template end "
            f"each answer with {token}, or name the token that it writes as the tokenizer's eos_token.",
        )
    return Finding(numbers)


def end_ids(trial: Trial) -> set[int]:
    """Tokens that can stand for an end: the end of sequence, and those that no plain text becomes."""
    tokenizer = trial.context.prepared.tokenizer
    return {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}


def last_learnt(trial: Trial) -> int:
    """How many tokens may be the last: some encoder-decoders close with the code of a language."""
    return 1 if trial.training.batching.objective == "causal" else 2


def ends_in(row: EncodedRow, ends: set[int], last: int) -> bool:
    learnt = [int(label) for label in row.labels if label != IGNORED]
    return any(label in ends for label in learnt[-last:])
