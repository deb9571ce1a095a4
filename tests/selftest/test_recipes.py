"""The shipped recipes on embedded models pass every check, numbers and all.

`recipes/summarize.yaml` is tried by the commands of the README.
"""

from pathlib import Path

import pytest

from peftune.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.selftest.conftest import tried


@pytest.mark.parametrize("name", ["classify", "translate", "qa"])
def test_a_shipped_recipe_passes(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(REPOSITORY / "recipes" / f"{name}.yaml", [f"output_dir={tmp_path}"])
    found = {result.name: result.finding for result in tried(recipe)}
    assert all(finding.failure is None for finding in found.values())
    assert found["gradients"].numbers["without"] == 0
    assert found["learns"].numbers["after"] < found["learns"].numbers["before"]
    assert found["reload"].numbers["adapter"] > 0.1
    assert ("end_token" in found) is (name == "translate")
