"""Runs the checks, prints them as a table, and stops the run at the first that fails."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from peftune.artefacts import SELFTEST
from peftune.context import Run
from peftune.engines.engine import Engine
from peftune.engines.ranks import Ranks
from peftune.errors import PeftuneError
from peftune.records import write_json
from peftune.selftest.check import Check, Finding, Number, Result
from peftune.selftest.checks import checks
from peftune.selftest.memory import is_out_of_memory, out_of_memory
from peftune.selftest.trial import Trial
from peftune.training.randomness import streams_as_before


def selftest(
    context: Run,
    engine: Engine,
    initial: dict[str, torch.Tensor],
    full: bool,
    say: Callable[[Any], None],
) -> list[Result]:
    """Run the checks on an engine that has taken no step, and leave it, bit for bit, as it was.

    `initial` is the adapter it holds; `say` prints on rank 0. Ends with the first check that fails and
    is not accepted by `selftest.accept`; the results are the same on every rank.
    """
    device = engine.ranks.device
    with streams_as_before(device):
        trial = Trial(context, engine, initial)
        trial.restart()
        results = run_checks(trial, checks(full))
        engine.restart(initial)
    say(table(results))
    return results


def require_passed(results: Sequence[Result]) -> None:
    """Raise PeftuneError for a check that stops the run."""
    for result in results:
        if result.stops:
            raise PeftuneError(message(result))


def run_checks(trial: Trial, chosen: Sequence[Check]) -> list[Result]:
    """In order, up to the first that stops the run; only what applies."""
    results: list[Result] = []
    for check in chosen:
        if check.applies(trial):
            results.append(run_check(trial, check))
        if results and results[-1].stops:
            break
    return results


def run_check(trial: Trial, check: Check) -> Result:
    started = time.monotonic()
    try:
        finding = check.run(trial)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        finding = out_of_memory(trial, error)
        leave_alone(trial.engine.ranks, check, finding)
        trial.restart()
    finding = agreed(trial.engine.ranks, finding)
    accepted = check.name in trial.context.recipe.selftest.accept
    seconds = time.monotonic() - started
    return Result(check.name, check.promise, finding, accepted, round(seconds, 3))


def leave_alone(ranks: Ranks, check: Check, finding: Finding) -> None:
    """With several ranks the others may be waiting for this one, so it says what happened and goes."""
    if ranks.world_size > 1:
        text = f"selftest.{check.name}: rank {ranks.rank}: {finding.failure}"
        if not ranks.is_main:
            print(f"error: {text}", file=sys.stderr)
        raise PeftuneError(text)


def agreed(ranks: Ranks, finding: Finding) -> Finding:
    """The first rank's finding that fails, or rank 0's; a collective."""
    found: list[Finding] = ranks.gather_objects([finding])
    return next((one for one in found if one.failure is not None), found[0])


def message(result: Result) -> str:
    """One line for the user."""
    return (
        f"selftest.{result.name}: {result.finding.failure} Or accept it: selftest.accept: "
        f"[{result.name}]."
    )


def table(results: Sequence[Result]) -> Table:
    """One line for each check that was run."""
    shown = Table("check", "promise", "", "seen", "s", title="self-test")
    for result in results:
        verdict = "passed"
        if result.finding.failure is not None:
            verdict = "accepted" if result.accepted else "FAILED"
        seen = ", ".join(f"{name} {number(one)}" for name, one in result.finding.numbers.items())
        cells = (result.name, result.promise, verdict, seen, f"{result.seconds:.2f}")
        shown.add_row(*map(Text, cells))
    return shown


def number(value: Number) -> str:
    """As short as it can be."""
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else value


def write_results(context: Run, results: Sequence[Result]) -> None:
    """Write selftest.json into the run's folder."""
    if context.ranks.is_main:
        lines = [
            {
                "name": result.name,
                "promise": result.promise,
                "passed": result.finding.failure is None,
                "accepted": result.finding.failure is not None and result.accepted,
                "failure": result.finding.failure,
                "numbers": dict(result.finding.numbers),
                "seconds": result.seconds,
            }
            for result in results
        ]
        write_json(context.folder / SELFTEST, {"checks": lines})
