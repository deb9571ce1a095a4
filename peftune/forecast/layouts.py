"""`--fit`: which layout, and which recomputation, is the fastest that fits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from peftune.combination import check_combination
from peftune.engines.launch import Launch
from peftune.errors import LaunchError, RecipeError
from peftune.forecast.devices import GIB, Device
from peftune.forecast.forecast import Forecast, shared_out
from peftune.forecast.launcher_file import planned_launch
from peftune.forecast.rehearsal import Rehearsal, Subject, rehearse
from peftune.training.section import Recomputation

ENGINES = (
    ("ddp", False),
    ("zero2", False),
    ("fsdp2", False),
    ("zero3", False),
    ("fsdp2", True),
    ("zero3", True),
)
"""Engines, with or without offload: the simplest first, which wins where times are equal or unknown."""
ALIKE = 1.1
"""Times that differ by less are the same to a forecast, and then the simpler layout is better."""
HOST_RATE = 20e9
"""Bytes per second between a GPU and its host: what PCIe 4 reaches."""


Traced = dict[tuple[bool, str, Recomputation], Rehearsal]
"""By what decides which code an engine runs, and the recomputation."""


@dataclass(frozen=True)
class Choice:
    """One layout with what it would take."""

    launch: Launch
    recomputation: Recomputation
    forecast: Forecast

    @property
    def name(self) -> str:
        engine = "one process" if self.launch.world_size == 1 else self.launch.engine
        return f"{engine} with offload" if self.launch.offload else engine


def choices(
    subject: Subject, device: Device, nodes: int, ranks: int, traced: Traced | None = None
) -> list[Choice]:
    """Every layout that the matrix allows for the recipe, in the order of ENGINES. `traced` keeps the
    passes, for runs that differ in nothing but their devices.

    Raises LaunchError where it allows none.
    """
    traced = {} if traced is None else traced
    found = []
    for launch in allowed(subject, ranks):
        for recomputation in recomputations(subject):
            one = _with(subject, launch, recomputation)
            # Engines that hold the model alike run the same code.
            key = (launch.sharded, launch.engine if launch.sharded else "", recomputation)
            if key not in traced:
                traced[key] = rehearse(one)
            made = offloaded(shared_out(one, traced[key], device, nodes), traced[key])
            found.append(Choice(launch, recomputation, made))
    if not found:
        raise LaunchError("--fit: no engine is allowed for this recipe; see peftune matrix.")
    return found


def allowed(subject: Subject, ranks: int) -> Iterator[Launch]:
    """Layouts on so many GPUs that are not refused."""
    for engine, offload in ENGINES if ranks > 1 else ENGINES[:1]:
        launch = planned_launch(engine, ranks, offload)
        try:
            check_combination(subject.recipe, launch, ranks)
        except RecipeError:
            continue
        yield launch


def recomputations(subject: Subject) -> Sequence[Recomputation]:
    """The recipe's own first, then what saves more."""
    own = subject.recipe.train.gradient_checkpointing
    every: list[Recomputation] = [False, "selective", True]
    return every[every.index(own) :]


def _with(subject: Subject, launch: Launch, recomputation: Recomputation) -> Subject:
    recipe = subject.recipe
    train = recipe.train.model_copy(update={"gradient_checkpointing": recomputation})
    return replace(subject, recipe=recipe.model_copy(update={"train": train}), launch=launch)


def offloaded(made: Forecast, found: Rehearsal) -> Forecast:
    """With offload the weights come from the host for each pass, forward and backward."""
    if not made.launch.offload or not made.step_seconds:
        return made
    moved = 2 * found.total(False) / made.launch.world_size
    return replace(made, step_seconds=made.step_seconds + moved / HOST_RATE)


def fastest(found: Sequence[Choice]) -> Choice:
    """Of those that fit the first that is about as fast as any; where times are not known the first.

    Raises LaunchError if none fits.
    """
    fitting = [choice for choice in found if choice.forecast.fits]
    if fitting:
        least_seconds = min(choice.forecast.step_seconds for choice in fitting)
        return next(c for c in fitting if c.forecast.step_seconds <= ALIKE * least_seconds)
    least = min(found, key=lambda choice: choice.forecast.phases[choice.forecast.deciding])
    made = least.forecast
    raise LaunchError(
        f"--fit: nothing fits: {least.name} takes the least, {made.phases[made.deciding] / GIB:.1f} of "
        f"{made.device.memory / GIB:.1f} GiB in {made.deciding}; {way_out(made)}."
    )


def way_out(made: Forecast) -> str:
    """What to change, by what takes the most of the phase that decides."""
    weights = made.parts["weights"] + made.parts.get("gathered", 0)
    if made.deciding == "loading":
        return (
            "a device has to hold the weights once while loading; set quantization.method: bnb-nf4"
        )
    if made.deciding in ("evaluation", "writing answers"):
        return "lower train.per_device_eval_batch_size"
    if weights > made.parts["activations"]:
        return "set quantization.method: bnb-nf4 where it is not, or take more or larger devices"
    return (
        "lower train.per_device_train_batch_size, or set train.max_tokens_per_pass or "
        "train.gradient_checkpointing: true, which costs about a third of the time"
    )
