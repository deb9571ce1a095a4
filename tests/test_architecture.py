"""The structure that CONTRIBUTING.md describes, held by reading the source."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "peftune"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# A higher number may import a lower one; equal numbers only inside their own folder.
LEVELS = {
    "run": 9,
    "__main__": 9,
    "node": 9,
    "cli": 8,
    "cluster_cli": 8,
    "pipeline": 7,
    "publishing": 7,
    "reproducing": 7,
    "schedulers": 6,
    "preflight": 6,
    "status": 6,
    "selftest": 6,
    "fitting": 6,
    "forecast": 6,
    "resuming": 6,
    "shipping": 6,
    "artefacts": 5,
    "context": 5,
    "measurement": 5,
    "merging": 5,
    "probing": 5,
    "sources": 5,
    "preparation": 5,
    "reported": 5,
    "compatibility": 5,
    "checkpoint": 5,
    "combination": 5,
    "recipe": 4,
    "recipe_file": 4,
    "resolved": 4,
    "unread": 4,
    "training": 3,
    "evaluation": 3,
    # The recipe reads this section; the checks need the recipe as a whole.
    "selftest.section": 3,
    "export": 3,
    "matrix": 3,
    "engines": 2,
    "adapters": 2,
    "quantization": 2,
    "tasks": 2,
    "model": 2,
    # Folders are looked at before anything heavy is loaded; the recipe reads the section.
    "checkpoint.folder": 1,
    "checkpoint.section": 1,
    "data": 1,
    "plan": 1,
    "environment": 1,
    "signals": 1,
    "errors": -1,
    "allocator": -1,
    "imports": -1,
    "section": 0,
    "verbs": 0,
    "records": 0,
    "fingerprints": 0,
    "foreign_names": 0,
    "objectives": 0,
    "embedded": 0,
    "untrusted": 0,
    "__init__": -1,
}
# Files of one level that belong together.
TOGETHER = {
    ("cli", "cluster_cli"),
    ("recipe", "recipe_file"),
    ("recipe", "resolved"),
    ("recipe_file", "resolved"),
    ("recipe", "unread"),
    ("resolved", "unread"),
    ("artefacts", "preparation"),
    ("combination", "compatibility"),
    ("context", "preparation"),
    ("context", "measurement"),
    ("preparation", "reported"),
    ("artefacts", "merging"),
    ("artefacts", "sources"),
    ("compatibility", "sources"),
    ("merging", "sources"),
    ("context", "probing"),
    ("fitting", "resuming"),
    ("pipeline", "reproducing"),
    ("fitting", "shipping"),
    ("resuming", "shipping"),
    ("checkpoint", "preparation"),
    ("forecast", "selftest"),
}
# Lists of words and sentences, not logic.
WORD_TABLES = ("vocabulary", "scenarios_")
FORBIDDEN_NAMES = ("manager", "helper", "utils", "callback")


def part_of(path: Path) -> str:
    return part_named(".".join(path.relative_to(PACKAGE).with_suffix("").parts))


def part_named(module: str) -> str:
    """The part that a module below `peftune` belongs to."""
    return module if module in LEVELS else module.split(".")[0]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "peftune":
            names = [f"peftune.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        parts |= {
            part_named(name.removeprefix("peftune."))
            for name in names
            if name.startswith("peftune.")
        }
    return {part for part in parts if part in LEVELS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    own = part_of(path)
    for other in imported_parts(path) - {own}:
        allowed = LEVELS[other] < LEVELS[own] or tuple(sorted((own, other))) in TOGETHER
        assert allowed, f"{own} (level {LEVELS[own]}) imports {other} (level {LEVELS[other]})"


def test_every_part_has_a_level() -> None:
    assert {part_of(path) for path in FILES} <= LEVELS.keys()


def test_no_module_shadows_a_library() -> None:
    """Python puts the folder of a launched script on its path, so names there must be our own."""
    taken = sys.stdlib_module_names | packages_distributions().keys() - {"peftune"}
    names = {part_of(path) for path in FILES} - {"__init__"}
    assert names & taken == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if not path.stem.startswith(WORD_TABLES):
        assert source.count("\n") <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_probing_and_no_swallowed_errors(path: Path) -> None:
    assert not any(name in path.stem for name in FORBIDDEN_NAMES)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except on line {node.lineno}"
            assert ast.unparse(node.type) != "Exception", f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("getattr", "hasattr"), f"line {node.lineno}"


def test_validating_needs_no_torch() -> None:
    """The verbs that only read a recipe answer at once, so nothing heavy is imported for them."""
    import subprocess

    code = (
        "import sys, peftune.cli; heavy = {'torch', 'transformers', 'peft', 'datasets', 'deepspeed',"
        " 'accelerate', 'bitsandbytes'} & sys.modules.keys(); sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
