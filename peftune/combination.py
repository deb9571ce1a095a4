"""Which cells of the matrix a run is in, and what they answer, before anything heavy is loaded."""

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

from peftune.engines.launch import Launch
from peftune.errors import RecipeError
from peftune.matrix import MATRIX, SETTINGS, Cell, Grid
from peftune.recipe import Recipe
from peftune.tasks import TASKS

Device = Literal["cpu", "gpu"]
PLAIN_ADAPTER = {
    "lora-pissa": "adapter.init_lora_weights: true",
    "lora-olora": "adapter.init_lora_weights: true",
    "lora-experts": "no adapter.target_parameters",
}
PLAIN_SETTING = {
    "bitsandbytes-optimizer": "train.optim: adamw_torch",
    "flash-attention": "model.attn_implementation: sdpa",
}


def check_combination(recipe: Recipe, launch: Launch, gpus: int | None = None) -> list[str]:
    """Ask the matrix about the run; the unproven cells it is in, as text, where `gpus` is known.

    `gpus` are those of this machine, None before torch is there to count them. Raises RecipeError
    for a combination that is refused on every device and class of model that it can mean.
    """
    unproven = []
    for grid, cells in _asked(recipe, launch, _devices(launch, gpus)):
        rules = [grid.rule(cell) for cell in cells]
        if all(rule.state == "refused" for rule in rules):
            raise RecipeError(_refusal(recipe, launch, grid, cells[0]))
        if rules[0].state == "unproven":
            which = ", ".join(f"{cells[0][axis]}" for axis in grid.axes if axis != "model_class")
            unproven.append(f"{which} (needs {rules[0].why})")
    return unproven if gpus is not None else []


def check_machine(recipe: Recipe, launch: Launch, gpus: int) -> None:
    """Ask again now that the GPUs are counted; what is unproven is said in one line on rank 0."""
    unproven = check_combination(recipe, launch, gpus)
    if unproven and launch.rank == 0:
        print(f"warning: not proven by a test: {'; '.join(unproven)}.", file=sys.stderr)


def _devices(launch: Launch, gpus: int | None) -> tuple[Device, ...]:
    """Without a launcher's word, what torch finds decides."""
    if launch.use_cpu or gpus == 0:
        return ("cpu",)
    return ("gpu",) if launch.wants_gpu or gpus else ("cpu", "gpu")


def _asked(
    recipe: Recipe, launch: Launch, devices: Sequence[Device]
) -> Iterator[tuple[Grid, list[Cell]]]:
    """Each question: its grid and every cell it can mean, as the model's class is not known yet."""
    classes = TASKS[recipe.task].objectives
    parts = {
        "engine": engine_of(launch),
        "quantization": recipe.quantization.method if recipe.quantization else "none",
        "adapter": adapter_of(recipe),
    }
    for action in ("train", "merge") if recipe.export.merge else ("train",):
        last = {"action": action}
        pairs = product(devices, classes)
        yield MATRIX, [{"device": d, **parts, "model_class": c, **last} for d, c in pairs]
    for setting in settings_of(recipe):
        cells: list[Cell] = [
            {"device": d, "engine": parts["engine"], "setting": setting} for d in devices
        ]
        yield SETTINGS, cells


def engine_of(launch: Launch) -> str:
    """The matrix' name of the layout."""
    if launch.engine == "ddp":
        return "ddp" if launch.world_size > 1 else "single"
    return f"{launch.engine}-offload" if launch.offload else launch.engine


def adapter_of(recipe: Recipe) -> str:
    """The matrix' name of the adapter."""
    section = recipe.adapter
    if section.method != "lora":
        return section.method
    if section.target_parameters:
        return "lora-experts"
    return "lora" if section.init_lora_weights is True else f"lora-{section.init_lora_weights}"


def settings_of(recipe: Recipe) -> list[str]:
    """The matrix' names of the settings that differ from the plain ones."""
    train = recipe.train
    found: list[str] = [] if train.mixed_precision == "no" else [train.mixed_precision]
    if not train.optim.startswith("adamw_torch"):
        found.append("bitsandbytes-optimizer")
    if recipe.model.attn_implementation == "flash_attention_2":
        found.append("flash-attention")
    return found


def _refusal(recipe: Recipe, launch: Launch, grid: Grid, cell: Cell) -> str:
    rule, nearest = grid.rule(cell), grid.nearest_green(cell)
    changed = [axis for axis in grid.axes if nearest[axis] != cell[axis] and axis != "device"]
    ways = " and ".join(_as_written(axis, cell, nearest) for axis in changed)
    proven = "" if nearest["device"] == cell["device"] else " (proven on CPU ranks only)"
    blamed = _value(recipe, launch, rule.names, cell)
    return f"{blamed} {rule.why}; the nearest green cell has {ways}{proven}."


def _value(recipe: Recipe, launch: Launch, axis: str, cell: Cell) -> str:
    """The key and value that a cell's value on `axis` comes from, as typed."""
    adapter = recipe.adapter.model_dump(mode="json")
    match axis, cell[axis]:
        case "engine", _:
            return f"accelerate config: {launch.engine} with offload"
        case "adapter", "lora-experts":
            return f"adapter.target_parameters: [{', '.join(adapter['target_parameters'])}]"
        case "adapter", "lora-pissa" | "lora-olora":
            return f"adapter.init_lora_weights: {adapter['init_lora_weights']}"
        case "setting", "bitsandbytes-optimizer":
            return f"train.optim: {recipe.train.optim}"
        case "setting", "flash-attention":
            return f"model.attn_implementation: {recipe.model.attn_implementation}"
    return f"{axis}.method: {cell[axis]}"


def _as_written(axis: str, cell: Cell, nearest: Cell) -> str:
    """How a person writes the value of `nearest` on `axis`."""
    value = nearest[axis]
    match axis:
        case "engine":
            on_gpu = cell["device"] == "gpu"
            if value == "zero3-offload" and not on_gpu:
                return "ZeRO-3 with offload"
            file = {"single": "single_gpu" if on_gpu else "cpu"}.get(value, value.replace("-", "_"))
            prefix = "" if on_gpu or value == "single" else "cpu_"
            return f"accelerate_configs/{prefix}{file}.yaml"
        case "adapter":
            return PLAIN_ADAPTER.get(cell[axis], f"adapter.method: {value}")
        case "setting":
            return PLAIN_SETTING[cell[axis]]
    return f"{axis}: null" if value == "none" else f"{axis}.method: {value}"
