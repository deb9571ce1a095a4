"""The `peftune` command: each verb calls one function of one stage."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from peftune import cluster_cli
from peftune.compatibility import RUN_MARK, check_claims, check_recipe
from peftune.engines.launch import Launch, read_launch
from peftune.errors import PeftuneError
from peftune.imports import leave_out_scipy
from peftune.recipe import Recipe, json_schema, load_recipe
from peftune.resolved import resolved_yaml
from peftune.verbs import Debug, Overrides, RecipePath, RunFolder, exit_after
from peftune.verbs import report_errors as report_errors

# bitsandbytes compiles functions when it is imported, which takes seconds and 40 MB, for kernels that
# peftune does not call; nothing else here is compiled.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def train_recipe(path: str, overrides: list[str]) -> None:
    """Load, check and run a recipe under whatever launcher started this process."""
    recipe, launch = checked(path, overrides)
    leave_out_scipy()
    from peftune.pipeline import run

    run(recipe, launch)


def selftest_recipe(path: str, overrides: list[str]) -> None:
    """Load and check a recipe, and try it out under whatever launcher started this process."""
    recipe, launch = checked(path, overrides)
    leave_out_scipy()
    from peftune import pipeline

    pipeline.selftest_recipe(recipe, launch)


def checked(path: str, overrides: list[str]) -> tuple[Recipe, Launch]:
    """The recipe and what the launcher asked for. What only another rank than 0 finds wrong, rank 0
    hears of, because it speaks for all."""
    launch = read_launch(os.environ)
    try:
        recipe = load_recipe(path, overrides)
        check_recipe(recipe, launch)
    except PeftuneError as error:
        if launch.rank > 0:
            from peftune.engines.meeting import tell

            tell(launch, error)
        raise
    return recipe, launch


@app.command()
def train(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Train in this process. Example: peftune train recipes/summarize.yaml seed=1"""
    exit_after(debug, train_recipe, str(recipe), overrides or [])


@app.command()
def selftest(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Try a recipe out on this machine, check by check; writes nothing.
    Example: peftune selftest recipes/summarize.yaml"""
    exit_after(debug, selftest_recipe, str(recipe), overrides or [])


@app.command()
def validate(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Check a recipe without loading anything. Example: peftune validate recipes/summarize.yaml"""
    exit_after(debug, _validate, recipe, overrides or [])


def _validate(path: Path, overrides: list[str]) -> None:
    check_recipe(load_recipe(path, overrides), read_launch(os.environ))
    print(f"{path}: valid.")


@app.command()
def resolve(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Print all values and their origins. Example: peftune resolve recipes/summarize.yaml seed=1"""
    exit_after(debug, _resolve, recipe, overrides or [])


def _resolve(path: Path, overrides: list[str]) -> None:
    recipe, launch = load_recipe(path, overrides), read_launch(os.environ)
    check_claims(recipe, launch)
    print(resolved_yaml(recipe, launch), end="")


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    gpu: Annotated[str | None, typer.Option(help="h100, 24GB, 24GB:165 (TFLOP/s) …")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="Devices of each machine.")] = 1,
    config_file: Annotated[Path | None, typer.Option(help="accelerate's file of a layout.")] = None,
    price: Annotated[float | None, typer.Option(help="Of one device for an hour.")] = None,
    fit: Annotated[Path | None, typer.Option(help="Choose a layout, write its file here.")] = None,
    debug: Debug = False,
) -> None:
    """Print batches and steps, and what they take of memory, disk and time; needs no GPU.
    Example: peftune plan recipes/summarize.yaml --gpu 24GB --gpus 2"""
    exit_after(debug, _plan, recipe, overrides or [], gpu, nodes, gpus, config_file, price, fit)


def _plan(path: Path, overrides: list[str], *asked: Any) -> None:
    from peftune.forecast.planning import Asked, plan_text

    for line in plan_text(load_recipe(path, overrides), Asked(*asked)):
        print(line)


@app.command()
def prepare(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Tokenise and check the data once, for all later runs, and print what became of it as JSON.
    Example: peftune prepare recipes/summarize.yaml"""
    exit_after(debug, _prepare, recipe, overrides or [])


def _prepare(path: Path, overrides: list[str]) -> None:
    from peftune.preparation import report_data

    print(json.dumps(report_data(load_recipe(path, overrides)), indent=2, ensure_ascii=False))


@app.command()
def preview(
    recipe: RecipePath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 3,
    html: Annotated[Path | None, typer.Option(help="Write them to this page as well.")] = None,
    debug: Debug = False,
) -> None:
    """Show rows as the model sees them, learnt tokens in colour.
    Example: peftune preview recipes/summarize.yaml --rows 1 --html preview.html"""
    exit_after(debug, _preview, recipe, overrides or [], rows, html)


def _preview(path: Path, overrides: list[str], rows: int, html: Path | None) -> None:
    from rich.console import Console

    from peftune.preparation import preview_recipe

    console = Console()
    for text in preview_recipe(load_recipe(path, overrides), rows, html):
        console.print(text, end="\n\n")


@app.command()
def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    merged: Annotated[bool, typer.Option("--merged", help="The merged model.")] = False,
    debug: Debug = False,
) -> None:
    """Score a run's adapter and its base again. Example: peftune evaluate outputs/summarize"""
    exit_after(debug, _evaluate, run, overrides or [], merged)


def _evaluate(run: Path, overrides: list[str], merged: bool) -> None:
    recipe, launch = load_recipe(run / RUN_MARK, overrides), read_launch(os.environ)
    check_claims(recipe, launch)
    from peftune.pipeline import evaluate_run

    evaluate_run(recipe, launch, run, merged)


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of an adapter.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="New folder; default FOLDER/merged.")] = None,
    base: Annotated[str | None, typer.Option(help="Base of an adapter without a recipe.")] = None,
    dtype: Annotated[str | None, typer.Option(help="And its number format.")] = None,
    verify: Annotated[bool, typer.Option(help="Prove it in a fresh process.")] = True,
    quantize: Annotated[str | None, typer.Option(help="Bits of the result: bnb-nf4, …")] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="FOLDER=WEIGHT of another adapter.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the first adapter beside others; default 1.")
    ] = None,
    combination: Annotated[
        str | None, typer.Option(help="cat (default), svd, linear, ties, dare_ties, …")
    ] = None,
    density: Annotated[float | None, typer.Option(help="Share that TIES or DARE keeps.")] = None,
    debug: Debug = False,
) -> None:
    """Fold an adapter into its base. Example: peftune merge outputs/summarize --out merged"""
    several = (also or [], weight, combination, density)
    place = (folder, overrides or [], base, dtype)
    exit_after(debug, _merge, place, several, out or folder / "merged", verify, quantize)


def _merge(place: Any, several: Any, out: Path, verify: bool, quantize: str | None) -> None:
    from peftune.merging import adapter_of, merge_into_bits, merge_proven
    from peftune.sources import source_at

    source = source_at(*place)
    with adapter_of(source, place[0], *several) as folder:
        if quantize is None:
            merge_proven(source, folder, out, verify)
        else:
            merge_into_bits(source, folder, out, quantize, verify)
    print(out)


@app.command()
def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="New folder, or hub:ORG/NAME.")],
    merged: Annotated[bool, typer.Option("--merged", help="The merged model.")] = False,
    public: Annotated[bool, typer.Option("--public", help="For everyone to see.")] = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Give a run's adapter away, opened and compared first.
    Example: peftune export outputs/summarize --to shipped"""
    exit_after(debug, _export, run, to, merged, public, overrides or [])


def _export(run: Path, to: str, merged: bool, public: bool, overrides: list[str]) -> None:
    from peftune.publishing import export_run

    export_run(run, to, merged, public, overrides, print)


@app.command()
def reproduce(
    model: Annotated[str, typer.Argument(help="The folder of a run, or hub:ORG/NAME.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The new run's folder.")] = Path("reproduced"),
    debug: Debug = False,
) -> None:
    """Run the recipe of a model card again and compare the results.
    Example: peftune reproduce outputs/summarize --out again"""
    exit_after(debug, _reproduce, model, out, overrides or [])


def _reproduce(model: str, out: Path, overrides: list[str]) -> None:
    from peftune.reproducing import reproduce

    reproduce(model, out, overrides, read_launch(os.environ))


@app.command()
def matrix(
    cell: Annotated[str, typer.Option(help="axis=value,… of one cell; others are plain.")] = "",
    debug: Debug = False,
) -> None:
    """Print what works together, or ask about one cell.
    Example: peftune matrix --cell engine=zero3,quantization=bnb-nf4,adapter=dora"""
    exit_after(debug, _matrix, cell)


def _matrix(cell: str) -> None:
    from peftune.matrix import answer, overview, read_cell

    print(answer(read_cell(cell)) if cell else overview(), end="\n" if cell else "")


@app.command()
def schema() -> None:
    """Print the recipe's JSON Schema. Example: peftune schema > recipe.schema.json"""
    print(json.dumps(json_schema(), indent=2))


@app.command()
def env() -> None:
    """Print versions and devices, tested or not. Example: peftune env"""
    from peftune.environment import print_environment

    print_environment()


app.command()(cluster_cli.launch)
app.command()(cluster_cli.status)


def main() -> None:
    """Entry point of the console script."""
    app()
