"""The check of what is saved: adapter and merged model give the scores that training sees."""

import gc
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from peftune.artefacts import load_frozen, write_adapter, write_tokenizer
from peftune.data.collate import Batch
from peftune.errors import PeftuneError
from peftune.merging import write_merged
from peftune.selftest.attention import Scores, own_scores
from peftune.selftest.check import Finding
from peftune.selftest.trial import Trial, spread_difference
from peftune.sources import source_of

WAY_OUT = (
    "what is saved is not what is trained, because a head was resized or untied, or something that "
    "counts is not in the files; load the checkpoint as it was saved"
)


def reload(trial: Trial) -> Finding:
    """The adapter loads with plain peft, and merges, to the scores that it has in training."""
    batch = trial.batch(trial.ragged)
    scores = own_scores(trial, trial.ragged, batch)
    with trial.engine.module.disable_adapter():
        plain = own_scores(trial, trial.ragged, batch)
    state = trial.engine.trainable_state()
    if not trial.engine.ranks.is_main:
        # All ranks take the finding of the first.
        return Finding({})
    try:
        reloaded, merged = saved_scores(trial, batch, state)
    except PeftuneError as error:
        return Finding({}, f"{error} So {WAY_OUT}.")
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        return Finding({}, f"{' '.join(str(error).split())} So {WAY_OUT}.")
    return compared(trial, scores, plain, reloaded, merged)


def compared(
    trial: Trial, scores: Scores, plain: Scores, reloaded: Scores, merged: Scores
) -> Finding:
    effect, again, one = (spread_difference(scores, s) for s in (plain, reloaded, merged))
    numbers = {"adapter": effect, "reloaded": again, "merged": one, "bound": trial.bound}
    if not max(again, one) <= trial.bound:
        shapes = {"trained": list(scores[0].shape), "saved": list(reloaded[0].shape)}
        return Finding(
            numbers,
            f"scores of the reloaded adapter differ by {again:.1e} of their spread and those of the "
            f"merged model by {one:.1e} (bound {trial.bound:.0e}; shapes {shapes}), so {WAY_OUT}.",
        )
    return Finding(numbers)


def saved_scores(
    trial: Trial, batch: Batch, state: dict[str, torch.Tensor]
) -> tuple[Scores, Scores]:
    """What files alone give: the adapter on the weights it is trained on, and the merged model."""
    context, recipe = trial.context, trial.context.recipe
    head, quantized = context.prepared.head, recipe.quantization is not None
    # What is merged here are the weights that the adapter is trained on, whatever is shipped later.
    source = replace(source_of(recipe, head), dequantized=quantized)
    device = trial.engine.ranks.device if quantized else torch.device("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = trial.engine.module.peft_config["default"]
        write_adapter(recipe, folder, config, trial.initial, state)
        write_tokenizer(context.prepared, folder)
        base, _ = load_frozen(recipe, head, str(device), sharded=False)
        reloaded = scores_of(trial, PeftModel.from_pretrained(base, name), batch, device)
        del base
        gc.collect()
        write_merged(source, folder, folder / "merged", accept=lambda written: None)
        merged = scores_of(trial, load_merged(trial, folder / "merged"), batch, torch.device("cpu"))
    return reloaded, merged


def load_merged(trial: Trial, folder: Path) -> Any:
    """The merged model as a user loads it."""
    from transformers.models.auto import modeling_auto

    recipe, objective = trial.context.recipe, trial.context.prepared.objective
    loader = modeling_auto.__dict__[objective.auto_class]
    return loader.from_pretrained(
        folder,
        dtype=recipe.model.dtype,
        attn_implementation=recipe.model.attn_implementation,
        trust_remote_code=recipe.model.trust_remote_code,
    )


def scores_of(trial: Trial, model: Any, batch: Batch, device: torch.device) -> Scores:
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    return own_scores(trial, trial.ragged, moved, model)
