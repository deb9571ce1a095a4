"""Gives away a run's adapter or merged model: put together, opened as others will, moved or uploaded."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from peftune.compatibility import RUN_MARK
from peftune.errors import ExportError
from peftune.export.hub import HubTarget, parse_target, publish
from peftune.export.package import copy_adapter, copy_merged, refuse_leaks
from peftune.export.parity import prove
from peftune.merging import REPORT, merge_bound, opened_adapter, opened_merged, probe_of
from peftune.model.location import is_local, model_location
from peftune.recipe import Recipe, load_recipe
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
    recipe, place = load_recipe(run / RUN_MARK, overrides), parse_target(target)
    if not isinstance(place, HubTarget) and place.exists():
        raise ExportError(f"--to: {place} exists; remove it, or give another folder.")
    source = source_of_run(recipe, run)
    accept = acceptance(source, run, merged)
    if isinstance(place, HubTarget):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "export"
            put_together(recipe, source, run, folder, merged)
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
    with beside(place) as folder:
        put_together(recipe, source, run, folder, merged)
        accept(folder)
    say(str(place))


def put_together(recipe: Recipe, source: Source, run: Path, folder: Path, merged: bool) -> None:
    """What is given away, in a new folder. Raises ExportError for what must not be."""
    with storing(folder, 0):
        folder.mkdir(parents=True)
        if merged:
            copy_merged(require_proven(run / MERGED), folder)
        else:
            copy_adapter(run, folder)
    write_card(recipe, run, source.head.objective, folder, merged)
    bases = [Path(model_location(recipe.model))] if is_local(recipe.model) else []
    refuse_leaks(folder, [run.absolute(), *bases])


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A place for a folder that gets the name `out` at the end, and is gone after an error."""
    aside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
        with storing(out, 0):
            os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
