"""What recipes/README.md says: its table is that of the files, its commands are those of the recipe."""

import re

import pytest

from peftune.cli import app
from tests.conftest import REPOSITORY
from tests.recipes.recipe_table import BEGIN, END, LIBRARY, RECIPES, recipe_table

TEXT = LIBRARY.read_text(encoding="utf-8")
(COMMANDS,) = (
    block.splitlines()
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
)


def test_the_table_of_recipes_is_current() -> None:
    """After a change of a recipe run `python -m tests.keys_table`."""
    assert TEXT.partition(BEGIN)[2].partition(END)[0] == recipe_table()


def test_the_commands_are_those_of_a_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one starts a GPU: it is the command in that recipe, whose parts are tested."""
    monkeypatch.chdir(REPOSITORY)
    check, launch = COMMANDS
    with pytest.raises(SystemExit, match="0"):
        app(check.removeprefix("peftune ").split())
    path = check.split()[-1]
    assert capsys.readouterr().out == f"{path}: valid.\n"
    assert (REPOSITORY / path).read_text(encoding="utf-8").splitlines()[1] == f"# {launch}"


def test_every_recipe_is_a_short_read() -> None:
    for path in RECIPES:
        assert 25 <= len(path.read_text(encoding="utf-8").splitlines()) <= 50
