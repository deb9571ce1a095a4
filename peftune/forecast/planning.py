"""`peftune plan`: batches and steps, memory, disk and time, and the layout that fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from peftune.compatibility import check_recipe
from peftune.engines.launch import Launch
from peftune.errors import LaunchError, ModelError
from peftune.forecast.devices import GPUS, Device, device_named
from peftune.forecast.forecast import Forecast, forecast, subject_of
from peftune.forecast.launcher_file import (
    planned_launch,
    planned_layout,
    write_launcher_file,
)
from peftune.forecast.layouts import choices, fastest
from peftune.forecast.records import close_loop, errors_beside
from peftune.forecast.report import choice_lines, error_lines, forecast_lines, plan_lines
from peftune.forecast.speed import measured_device
from peftune.preparation import plan_for, prepare_data
from peftune.recipe import Recipe


@dataclass(frozen=True)
class Asked:
    """What a plan is for."""

    gpu: str | None = None
    nodes: int = 1
    gpus: int = 1
    config_file: Path | None = None
    price: float | None = None
    fit: Path | None = None
    """Where accelerate's file for the chosen layout goes."""

    def layout(self) -> tuple[Launch, int]:
        """Layout and nodes. Raises LaunchError."""
        if self.config_file is not None:
            if self.nodes * self.gpus > 1:
                raise LaunchError(
                    "--config-file: the file says how many; leave --nodes and --gpus out."
                )
            return planned_layout(self.config_file)
        return planned_launch("ddp", self.nodes * self.gpus), self.nodes


def plan_text(recipe: Recipe, asked: Asked) -> Iterator[str]:
    """The lines of a plan. Raises RecipeError, DataError, ModelError and LaunchError."""
    if asked.price is not None and asked.price < 0:
        raise LaunchError(
            f"--price: {asked.price:g} is below zero; give the price of a device hour."
        )
    device = device_of(asked.gpu)
    if asked.fit is not None and asked.gpu is None:
        raise LaunchError("--fit: say for which device, as in --gpu 24GB or --gpu h100.")
    launch, nodes = asked.layout()
    launch = replace(launch, use_cpu=device.kind == "cpu", wants_gpu=device.kind != "cpu")
    check_recipe(recipe, launch)
    prepared = prepare_data(recipe)
    plan = plan_for(recipe, len(prepared.rows["train"]), launch.world_size)
    yield from plan_lines(plan)
    subject = subject_of(recipe, prepared, plan, launch, device.kind)
    try:
        if asked.fit is None:
            made = forecast(subject, device, nodes)
        else:
            found = choices(subject, device, nodes, launch.world_size)
            best = fastest(found)
            made = best.forecast
            yield from choice_lines(found, best)
            write_launcher_file(asked.fit, best.launch, nodes)
            yield f"wrote {asked.fit}"
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"model.model_name_or_path: the code of {recipe.model.model_name_or_path!r} asks for numbers "
            f"that a plan does not have ({reason}); the self-test measures it on the device instead."
        ) from error
    yield from forecast_lines(made, asked.price)
    yield from _record(made, Path(recipe.output_dir))


def _record(made: Forecast, folder: Path) -> Iterator[str]:
    close_loop(made, folder)
    yield from error_lines(errors_beside(folder))


def device_of(gpu: str | None) -> Device:
    """The device that was named, or this machine's. Raises LaunchError."""
    if gpu is not None:
        return device_named(gpu)
    if not torch.cuda.is_available():
        return measured_device()
    found = torch.cuda.get_device_properties(0)
    known = [name for name in GPUS if name in found.name.lower().replace(" ", "")]
    return device_named(known[0] if known else f"{found.total_memory / 2**30:.1f}GB")
