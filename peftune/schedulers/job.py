"""A run as a scheduler sees it: which commands, on how many nodes, for how long."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydantic import ValidationError

from peftune.compatibility import check_recipe
from peftune.engines.launcher_file import LauncherFile
from peftune.errors import LaunchError, did_you_mean
from peftune.recipe import load_recipe
from peftune.recipe_file import read_recipe
from peftune.schedulers.section import SiteSection

FOLDER_SUFFIX = ".jobs"


@dataclass(frozen=True)
class Limits:
    """How long a job may take, and what happens at the end of its time."""

    minutes: int | None = None
    """Time limit; without it the scheduler's own."""
    grace_s: int = 120
    """Seconds before the limit at which the run is told to save and stop."""
    restarts: int | None = None
    """How often the run may be started again; without it as the scheduler's module says."""


@dataclass(frozen=True)
class Job:
    """One recipe on some nodes."""

    recipe_path: Path
    output_dir: Path
    """Of the run, or what the folders of a sweep's runs begin with."""
    points: tuple[tuple[str, ...], ...]
    """Overrides of each run: one, or all of a sweep."""
    launcher: LauncherFile
    nodes: int
    processes: int
    """Ranks on each node."""
    site: SiteSection
    limits: Limits

    @property
    def name(self) -> str:
        return self.output_dir.name

    @property
    def layout(self) -> str:
        """In words."""
        kind = "GPU" if self.launcher.uses_gpus else "CPU"
        return f"{self.nodes} node(s) × {self.processes} {kind} rank(s), by {self.launcher.path}"

    @property
    def folder(self) -> Path:
        """Scripts and logs of the jobs; not the run's own folder, which a run begins empty."""
        return self.output_dir.with_name(f"{self.name}{FOLDER_SUFFIX}")

    @property
    def gpus_per_node(self) -> int:
        """0 where the launcher's file asks for CPU ranks."""
        return (self.site.gpus_per_node or self.processes) if self.launcher.uses_gpus else 0

    @property
    def python(self) -> tuple[str, ...]:
        """The interpreter inside the container. `-P` keeps files of the working folder off its path."""
        return (*self.site.container, self.site.python or sys.executable, "-P", "-m")

    @property
    def variables(self) -> dict[str, str]:
        """What every process finds in its environment."""
        cache = {"PEFTUNE_CACHE": self.site.cache} if self.site.cache else {}
        return {**self.site.environment, **cache}

    def prepare_command(self, point: Sequence[str]) -> list[str]:
        """Makes the tokens of a run, so that no rank does while others wait."""
        return [*self.python, "peftune", "prepare", str(self.recipe_path), *point]

    def node_command(self) -> list[str]:
        """Starts the ranks of one node; its number, the first node and the run's overrides follow."""
        layout = ["--nodes", str(self.nodes), "--processes", str(self.processes)]
        file = str(self.launcher.path.absolute())
        return [*self.python, "peftune.node", "--config-file", file, *layout]


def read_site(path: Path | None) -> SiteSection:
    """The site's file, or nothing special. Raises RecipeError for unknown keys and wrong values."""
    if path is None:
        return SiteSection()
    if not path.is_file():
        raise LaunchError(f"--site: {path}: no such file.")
    try:
        return SiteSection.model_validate(read_recipe(path).tree)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, one['loc']))}: {_reason(one['type'], one['msg'], one['loc'])}"
            for one in error.errors()
        ]
        raise LaunchError("\n".join(lines)) from None


def _reason(kind: str, message: str, location: tuple[int | str, ...]) -> str:
    if kind == "extra_forbidden":
        guess = did_you_mean(str(location[-1]), SiteSection.model_fields)
        return f"is no key of a site's file.{guess}"
    return f"{message[:1].lower()}{message[1:]}."


def sweep_points(sweep: Mapping[str, Sequence[str]], output_dir: Path) -> list[list[str]]:
    """Overrides of every combination of values, each with a folder of its own."""
    keys = [[f"{key}={value}" for value in values] for key, values in sweep.items()]
    return [
        [*chosen, f"output_dir={output_dir}-{index}"] if sweep else []
        for index, chosen in enumerate(product(*keys))
    ]


def read_sweep(arguments: Sequence[str]) -> dict[str, list[str]]:
    """`key=value,value` of each argument. Raises LaunchError."""
    found = {}
    for argument in arguments:
        key, _, values = argument.partition("=")
        found[key] = [value for value in values.split(",") if value]
        if not found[key]:
            raise LaunchError(f"--sweep {argument}: write key=value,value.")
    return found


def make_job(
    recipe_path: Path,
    overrides: Sequence[str],
    launcher: LauncherFile,
    layout: tuple[int | None, int | None],
    site: SiteSection,
    limits: Limits,
    sweep: Sequence[str] = (),
) -> Job:
    """Check everything that can be checked before anything is queued.

    `layout` holds nodes and ranks of all nodes together, where they differ from the launcher's file.
    Raises RecipeError and LaunchError.
    """
    nodes, total = layout[0] or launcher.machines, layout[1] or launcher.processes
    if total % nodes:
        raise LaunchError(
            f"--nodes: {nodes} nodes cannot share {total} processes; give --processes a multiple of "
            f"{nodes}."
        )
    if limits.minutes is not None and limits.grace_s >= 60 * limits.minutes:
        raise LaunchError(
            f"--grace: {limits.grace_s} s are not less than --minutes {limits.minutes}: the run would be "
            "told to stop as it starts."
        )
    path = recipe_path.absolute()
    output = Path(load_recipe(path, list(overrides)).output_dir).absolute()
    points = [(*overrides, *point) for point in sweep_points(read_sweep(sweep), output)]
    for point in points:
        check_recipe(load_recipe(path, list(point)), launcher.launch(total))
    return Job(path, output, tuple(points), launcher, nodes, total // nodes, site, limits)
