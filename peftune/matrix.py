"""What works together, as data: axes, the rules that judge a cell, and how much is proven.

A cell names one value of each axis. The first rule that fits it decides: refused with the reason,
unproven with the hardware that a proof needs, or green with the tests that prove it. Imports no torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

from peftune.errors import RecipeError, did_you_mean
from peftune.objectives import MODEL_CLASSES
from peftune.quantization import BACKENDS

State = Literal["green", "refused", "unproven"]
Cell = Mapping[str, str]
STATES: tuple[State, ...] = ("green", "refused", "unproven")
TESTS = "tests/contract/test_cells.py"

QUANTIZED = tuple(BACKENDS)
ZERO = ("zero1", "zero1-offload", "zero2", "zero2-offload", "zero3", "zero3-offload")
FSDP2 = ("fsdp2", "fsdp2-offload")
ENGINES = ("single", "ddp", *ZERO[:5], *FSDP2, "zero3-offload")
"""How the ranks share the work, engines that do the same kind of thing beside each other."""


@dataclass(frozen=True)
class Rule:
    """A verdict on every cell whose values are among those of `where`."""

    state: State
    where: Mapping[str, tuple[str, ...]]
    why: str = ""
    """Of a refusal: what follows the value it names. Of an unproven cell: the hardware it needs."""
    names: str = ""
    """Of a refusal: the axis whose value is to blame."""

    def fits(self, cell: Cell) -> bool:
        return all(cell[axis] in values for axis, values in self.where.items())


@dataclass(frozen=True)
class Grid:
    """Some axes and the rules over them; the last rule fits every cell."""

    axes: Mapping[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    proof: Callable[[Cell], tuple[str, ...]]
    """The pytest node ids that prove a green cell."""
    distance: Mapping[str, float]
    """What it costs a person to choose another value of an axis."""

    def cells(self) -> Iterator[Cell]:
        for values in product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def rule(self, cell: Cell) -> Rule:
        return self._judged[tuple(cell[axis] for axis in self.axes)]

    @cached_property
    def _judged(self) -> dict[tuple[str, ...], Rule]:
        """Thousands of cells are compared with one another, so each is judged once."""
        return {
            tuple(cell.values()): next(rule for rule in self.rules if rule.fits(cell))
            for cell in self.cells()
        }

    @cached_property
    def green(self) -> list[Cell]:
        """The green cells."""
        return [cell for cell in self.cells() if self.rule(cell).state == "green"]

    def counts(self) -> Counter[State]:
        return Counter(self.rule(cell).state for cell in self.cells())

    def cell(self, chosen: Mapping[str, str]) -> Cell:
        """The cell of the `chosen` values, of other axes the first one. Raises RecipeError."""
        for axis, value in chosen.items():
            if axis not in self.axes:
                raise RecipeError(
                    f"--cell: {axis} is not an axis of the matrix.{did_you_mean(axis, self.axes)} "
                    f"The axes are: {', '.join(self.axes)}."
                )
            if value not in self.axes[axis]:
                raise RecipeError(
                    f"--cell: {axis}={value} is not one of {', '.join(self.axes[axis])}."
                    f"{did_you_mean(value, self.axes[axis])}"
                )
        return {axis: values[0] for axis, values in self.axes.items()} | dict(chosen)

    def nearest_green(self, cell: Cell) -> Cell:
        """The green cell that asks for the fewest and cheapest changes.

        It may be proven on the other device only; on this one it is not refused.
        """

        def possible(other: Cell) -> bool:
            return self.rule({**other, "device": cell["device"]}).state != "refused"

        return min(filter(possible, self.green), key=lambda other: self._cost(cell, other))

    def _cost(self, cell: Cell, other: Cell) -> float:
        """The axes that change, and a little for how far apart their values stand."""
        cost = 0.0
        for axis, values in self.axes.items():
            if cell[axis] != other[axis]:
                apart = values.index(other[axis])
                # Engines stand beside their kin; of other axes the first value is the plain one.
                apart -= values.index(cell[axis]) if axis == "engine" else 0
                cost += self.distance[axis] + abs(apart) / 100
        return cost


def _cell_tests(cell: Cell) -> tuple[str, ...]:
    """Training is compared with one process; the others start from what one would have saved."""
    parts = [cell[axis] for axis in ("quantization", "adapter", "model_class")]
    computed, saved = "-".join([cell["engine"], *parts]), "-".join(parts)
    trains = f"{TESTS}::test_trains[{computed}]"
    more = {
        "resume": f"{TESTS}::test_resumes[{computed}]",
        "merge": f"{TESTS}::test_merges[{saved}]",
    }
    return (trains, *(test for action, test in more.items() if action == cell["action"]))


def _setting_tests(cell: Cell) -> tuple[str, ...]:
    return (f"{TESTS}::test_setting[{cell['engine']}-{cell['setting']}]",)


ON_GPU = (
    Rule("unproven", {"device": ("gpu",), "engine": ("single",)}, "one GPU"),
    Rule("unproven", {"device": ("gpu",)}, "two GPUs"),
)
OFFLOAD = (
    Rule(
        "refused",
        {"device": ("cpu",), "engine": ("fsdp2-offload",)},
        "moves weights between host and GPU, and CPU ranks have none",
        "engine",
    ),
    Rule("unproven", {"engine": ("zero1-offload", "zero2-offload")}, "two GPUs"),
)
GREEN = Rule("green", {})
EXPERTS: dict[str, tuple[str, ...]] = {"adapter": ("lora-experts",)}

MATRIX = Grid(
    axes={
        "device": ("cpu", "gpu"),
        "engine": ENGINES,
        "quantization": ("none", *QUANTIZED),
        "adapter": ("lora", "lora-pissa", "lora-olora", "lora-experts", "dora", "ia3"),
        "model_class": MODEL_CLASSES[::-1],
        "action": ("train", "resume", "merge"),
    },
    rules=(
        Rule(
            "refused",
            {**EXPERTS, "quantization": QUANTIZED},
            "needs plain experts: bitsandbytes quantizes linear layers only",
            "adapter",
        ),
        Rule(
            "refused",
            {**EXPERTS, "model_class": ("encoder-decoder", "encoder")},
            "needs experts that are one tensor, which only decoders have",
            "adapter",
        ),
        Rule(
            "refused",
            {"adapter": ("lora-pissa", "lora-olora"), "quantization": QUANTIZED},
            "changes the base weights, which a quantized base cannot take",
            "adapter",
        ),
        Rule(
            "refused",
            {"engine": FSDP2, "quantization": ("bnb-int8",)},
            "cannot be trained with FSDP2, which takes 8-bit weights apart from their scales",
            "quantization",
        ),
        Rule(
            "refused",
            {
                "device": ("cpu",),
                "engine": ("zero3", "zero3-offload"),
                "quantization": QUANTIZED,
                "adapter": ("dora",),
            },
            "makes quantized weights anew in each pass on the CPU, and ZeRO-3 loses track of them",
            "adapter",
        ),
        *OFFLOAD,
        *ON_GPU,
        GREEN,
    ),
    proof=_cell_tests,
    distance={
        "device": 0.1,
        "engine": 2.0,
        "adapter": 3.0,
        "quantization": 4.0,
        "model_class": 6.0,
        "action": 8.0,
    },
)

SETTINGS = Grid(
    axes={
        "device": ("cpu", "gpu"),
        "engine": ENGINES,
        "setting": ("plain", "bf16", "fp16", "bitsandbytes-optimizer", "flash-attention"),
    },
    rules=(
        Rule(
            "refused",
            {"setting": ("bitsandbytes-optimizer",), "engine": (*ZERO, *FSDP2)},
            "keeps its state in a form that this engine cannot shard",
            "setting",
        ),
        Rule(
            "refused",
            {"setting": ("bitsandbytes-optimizer", "flash-attention"), "device": ("cpu",)},
            "needs a GPU",
            "setting",
        ),
        *OFFLOAD,
        Rule("unproven", {"setting": ("fp16",), "engine": ("single",)}, "one GPU"),
        Rule("unproven", {"setting": ("fp16",)}, "two GPUs"),
        *ON_GPU,
        GREEN,
    ),
    proof=_setting_tests,
    distance={"device": 0.1, "engine": 2.0, "setting": 1.0},
)


def table(grid: Grid) -> str:
    """Markdown: a row for each rule, in the order in which they are asked, with its cells counted."""
    found = Counter(id(grid.rule(cell)) for cell in grid.cells())
    lines = ["| State | Cells | Which | Why |", "|---|---|---|---|"]
    for rule in grid.rules:
        which = "; ".join(f"{axis} {', '.join(values)}" for axis, values in rule.where.items())
        why = (
            f"needs {rule.why}" if rule.state == "unproven" else f"{rule.names} {rule.why}".strip()
        )
        if rule.state == "green":
            which, why = "all others", f"`{TESTS}` runs each of them"
        lines.append(f"| {rule.state} | {found[id(rule)]:,} | {which} | {why} |")
    return "\n".join(lines) + "\n"


def overview() -> str:
    """Both grids: axes, counts and rules. A row is asked only about cells that no row above it took."""
    texts = []
    for grid in (MATRIX, SETTINGS):
        counts = grid.counts()
        states = ", ".join(f"{counts[state]:,} {state}" for state in STATES)
        axes = " × ".join(grid.axes)
        texts.append(f"{axes}: {counts.total():,} cells, {states}.\n\n{table(grid)}")
    return "\n".join(texts)


def answer(chosen: Mapping[str, str]) -> str:
    """What is known about one cell, as lines of text. Raises RecipeError for an unknown axis or value."""
    grid = SETTINGS if "setting" in chosen else MATRIX
    cell = grid.cell(chosen)
    rule = grid.rule(cell)
    lines = [" ".join(f"{axis}={value}" for axis, value in cell.items())]
    match rule.state:
        case "green":
            lines += ["green, proven by", *grid.proof(cell)]
        case "refused":
            nearest = grid.nearest_green(cell)
            changed = [
                f"{axis}={nearest[axis]}" for axis in grid.axes if nearest[axis] != cell[axis]
            ]
            lines.append(f"refused: {cell[rule.names]} {rule.why}")
            lines.append(f"nearest green cell: {' '.join(changed)}")
        case "unproven":
            lines.append(f"unproven: a proof needs {rule.why}")
    return "\n".join(lines)


def read_cell(text: str) -> dict[str, str]:
    """The values of `axis=value,axis=value`. Raises RecipeError."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    for axis, equals, value in pairs:
        if not (axis and equals and value):
            raise RecipeError(f"--cell: {text!r} is not of the form axis=value,axis=value.")
    return {axis: value for axis, _, value in pairs}
