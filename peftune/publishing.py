"""Gives away a run's adapter or merged model: put together, opened as others will, moved or uploaded."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from peftune.compatibility import RUN_MARK
from peftune.errors import ExportError
from peftune.export.hub import HubTarget, parse_target, publish
from peftune.export.package import copy_adapter, copy_merged, refuse_leaks
from peftune.export.parity import prove
from peftune.merging import REPORT, merge_bound, opened_adapter, opened_merged, probe_of
from peftune.model.location import is_local, model_location
from peftune.recipe import load_recipe
from peftune.records import read_json, storing
from peftune.shipping import MERGED, write_card
from peftune.sources import Source, source_of_run


def export_run(
    run: Path,
    target: str,
    merged: bool,
    public: bool,
    overrides: list[str],
    say: Callable[[str], None],
) -> None:
    """Put a run's adapter, or its merged model, into a new folder or a repository of the Hub.

    Raises ExportError for what must not be given away, ParityError for what does not compute what was
    trained, StorageError and HubError.
    """
    recipe = load_recipe(run / RUN_MARK, overrides)
    place, source = parse_target(target), source_of_run(recipe, run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "export"
        folder.mkdir()
        if merged:
            copy_merged(require_proven(run / MERGED), folder)
        else:
            copy_adapter(run, folder)
        write_card(recipe, run, source.head.objective, folder, merged)
        bases = [Path(model_location(recipe.model))] if is_local(recipe.model) else []
        refuse_leaks(folder, [run.absolute(), *bases])
        accept = acceptance(source, run, merged)
        if isinstance(place, HubTarget):
            publish(
                folder,
                place.repo_id,
                private=not public,
                message=f"peftune: {run.name}",
                accept=accept,
                say=say,
                resume_command=command(run, target, merged, public),
            )
            return
        accept(folder)
        move(folder, place)
        say(str(place))


def command(run: Path, target: str, merged: bool, public: bool) -> str:
    """What was typed, or means the same."""
    flags = [flag for flag, given in (("--merged", merged), ("--public", public)) if given]
    return " ".join(
        ["peftune", "export", shlex.quote(str(run)), "--to", shlex.quote(target), *flags]
    )


def require_proven(merged: Path) -> Path:
    """Raise ExportError for a merged model that is not there, or was not found to be what was trained."""
    if not merged.is_dir():
        raise ExportError(f"{merged} is not there; make it with `peftune merge {merged.parent}`.")
    if not read_json(merged / REPORT).get("accepted"):
        raise ExportError(
            f"{merged} was not compared with what was trained (export.verify: false); remove it and "
            f"run `peftune merge {merged.parent}`."
        )
    return merged


def acceptance(source: Source, run: Path, merged: bool) -> Callable[[Path], None]:
    """What opens a folder as others will, and compares its scores with those of training."""
    probe = probe_of(source, run)

    def accept(folder: Path) -> None:
        if merged:
            opened = {opened_merged(source, folder): merge_bound(source)}
        else:
            opened = {opened_adapter(source, folder): source.adapter_bound}
        prove(probe, opened, source.chooses)

    return accept


def move(folder: Path, out: Path) -> None:
    """A complete folder to its place, which must be free; another disk takes a copy first."""
    if out.exists():
        raise ExportError(f"--to: {out} exists; remove it, or give another folder.")
    aside = out.with_name(f"{out.name}.partial")
    with storing(out, sum(file.stat().st_size for file in folder.iterdir())):
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(folder, aside)
        os.replace(aside, out)
