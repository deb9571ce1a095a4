"""A forecast as lines of text."""

from collections.abc import Iterable, Iterator

from peftune.forecast.devices import GIB
from peftune.forecast.forecast import Forecast
from peftune.forecast.layouts import Choice, way_out
from peftune.forecast.records import Error
from peftune.plan import Plan

WIDTH = 24


def line(name: str, value: str) -> str:
    return f"{name:{WIDTH}}{value:>10}"


def size(count: float) -> str:
    """Bytes for reading."""
    return f"{count / GIB:,.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.1f} MiB"


def plan_lines(plan: Plan) -> Iterator[str]:
    """Batches and steps."""
    for name, value in vars(plan).items():
        yield line(name.replace("_", " "), f"{value:,}")


def forecast_lines(made: Forecast, price: float | None) -> Iterator[str]:
    """Parameters, memory by part and by phase, disk, and time."""
    yield line("trainable parameters", f"{made.trained:,}")
    yield line("frozen parameters", f"{made.frozen:,}")
    yield f"memory of a rank in training, {made.launch.engine} on {made.launch.world_size}:"
    for name, part in sorted(made.parts.items(), key=lambda item: -item[1]):
        if part:
            yield line(f"  {name}", size(part))
    yield f"peak of each phase, of {size(made.device.memory)} on {made.device.name}:"
    for phase, peak in made.phases.items():
        decides = "  decides" if phase == made.deciding else ""
        yield line(f"  {phase}", size(peak)) + decides
    if not made.fits:
        yield f"does not fit: {way_out(made)}"
    yield line("host memory, tensors", size(made.host))
    for name, part in made.disk.items():
        yield line(f"disk, {name}", size(part))
    yield from _time_lines(made, price)


def _time_lines(made: Forecast, price: float | None) -> Iterator[str]:
    yield line("operations of a step", f"{made.flops / 1e12:,.3f} T")
    if made.exchange.bytes:
        yield line("sent by a rank per step", size(made.exchange.bytes))
    if not made.step_seconds:
        yield "time: unknown; give the device's rate, as in --gpu 24GB:165"
        return
    yield line("seconds of a step", f"{made.step_seconds:,.3f}")
    yield line("hours", f"{made.hours:,.2f}")
    if price is not None:
        yield line("price", f"{made.hours * made.launch.world_size * price:,.2f}")


def choice_lines(found: Iterable[Choice], best: Choice) -> Iterator[str]:
    """Each layout with its peak and time, and why one of them."""
    yield f"{'layout':{WIDTH}}{'recomputation':>14}{'peak':>14}{'seconds of a step':>19}"
    for choice in found:
        made = choice.forecast
        peak = size(made.phases[made.deciding]) + ("" if made.fits else " !")
        seconds = f"{made.step_seconds:,.3f}" if made.step_seconds else "unknown"
        mark = "  <-" if choice is best else ""
        yield f"{choice.name:{WIDTH}}{choice.recomputation!s:>14}{peak:>14}{seconds:>19}{mark}"
    made = best.forecast
    why = "the fastest that fits" if made.step_seconds else "the simplest that fits"
    yield (
        f"{best.name} with train.gradient_checkpointing: {str(best.recomputation).lower()} is {why}; "
        f"{made.deciding} decides, with {size(made.phases[made.deciding])} of {size(made.device.memory)}"
    )


def error_lines(errors: Iterable[Error]) -> Iterator[str]:
    """What was planned for runs that have been made, beside what they took."""
    for one in errors:
        yield (
            f"planned before: {one.run}: {size(one.planned_bytes)} for {size(one.measured_bytes)} "
            f"({one.memory_error:+.0%}), {one.planned_seconds:.3f} for {one.measured_seconds:.3f} s a "
            f"step ({one.time_error:+.0%})"
        )
