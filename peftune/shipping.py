"""What leaves a run: its adapter with proof of what it computes, the merged model, the model card."""

import os
import shutil
from pathlib import Path

import torch

from peftune.artefacts import SELFTEST, write_adapter, write_tokenizer
from peftune.compatibility import FINISHED
from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.evaluation.evaluate import Measurement
from peftune.export.card import Told, base_license, model_card
from peftune.export.parity import PROBE, Probe, prove
from peftune.fitting import TRAIN_RESULTS
from peftune.measurement import EVAL_RESULTS, measure
from peftune.merging import REPORT, merge_proven, opened_adapter
from peftune.objectives import Objective
from peftune.probing import Probing
from peftune.recipe import Recipe
from peftune.records import read_json, write_json, write_text
from peftune.resuming import DATA_REPORT
from peftune.sources import source_of
from peftune.training.reporting import Reporter

MERGED = "merged"


def save(context: Run, engine: Engine, initial: dict[str, torch.Tensor]) -> None:
    """The finished adapter with its tokenizer."""
    state = engine.trainable_state()
    if context.ranks.is_main:
        config = engine.module.peft_config["default"]
        write_adapter(context.recipe, context.folder, config, initial, state)
        write_tokenizer(context.prepared, context.folder)
    context.ranks.wait()


def measured(
    context: Run, engine: Engine, initial: dict[str, torch.Tensor]
) -> tuple[Measurement | None, Measurement | None]:
    """Base and adapted model on the test split, and the scores that every artefact has to repeat.

    The adapter as it began changes nothing, so what is trained starts without waiting for the base.
    """
    probing = Probing(context, engine)
    adapted, trained = measure(context, engine), probing.scores()
    engine.load_trainable_state(initial)
    base, untrained = measure(context, engine), probing.scores()
    if context.ranks.is_main:
        probing.probe(trained, untrained).save(context.folder / PROBE)
    return base, adapted


def merge_and_describe(context: Run, reporter: Reporter) -> None:
    """Merged model and model card, and where everything is; last of all what says that all is done."""
    if context.ranks.is_main:
        trained, scores = (
            read_json(context.folder / name) for name in (TRAIN_RESULTS, EVAL_RESULTS)
        )
        prove_and_merge(context)
        write_card(context.recipe, context.folder, context.prepared.objective, context.folder)
        write_json(context.folder / FINISHED, {**trained, **scores})
        for path in sorted(context.folder.iterdir()):
            reporter.say(f"wrote {path}{os.sep if path.is_dir() else ''}")
    context.ranks.wait()


def prove_and_merge(context: Run) -> None:
    """The adapter's files opened as others will, and the merged model in the run's folder, where one
    may be of before an interruption."""
    recipe, folder = context.recipe, context.folder
    source = source_of(recipe, context.prepared.head)
    if recipe.export.merge:
        shutil.rmtree(folder / MERGED, ignore_errors=True)
        merge_proven(source, folder, folder / MERGED, recipe.export.verify)
    elif recipe.export.verify:
        opened = {opened_adapter(source, folder): source.adapter_bound}
        prove(Probe.load(folder / PROBE), opened, source.chooses)


def write_card(
    recipe: Recipe, run: Path, objective: Objective, folder: Path, merged: bool = False
) -> None:
    """README.md of an adapter or a merged model in `folder`, from the files of its run."""
    told = Told(
        recipe=recipe.model_dump(mode="json"),
        objective=objective,
        splits=read_json(run / DATA_REPORT),
        results=read_json(run / EVAL_RESULTS),
        train_results=read_json(run / TRAIN_RESULTS),
        license_fields=base_license(recipe.model),
        selftest=read_json(run / SELFTEST),
        merge_report=read_json(run / MERGED / REPORT),
        merged=merged,
    )
    write_text(folder / "README.md", model_card(told))
