"""The self-test passes on every engine and leaves it, bit for bit, as it was."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, write_recipe
from tests.launching import environment, free_port, launch_command


@pytest.mark.thorough
@pytest.mark.parametrize("layout", ["cpu_zero3", "cpu_fsdp2"])
def test_a_training_after_the_self_test_is_the_same_training(
    layout: str, tmp_path: Path, recipe_tree: dict[str, Any]
) -> None:
    """With dropout, accumulation and a short last batch.

    The other engines train after the quick checks, to the same numbers, in tests/engines.
    """
    recipe_tree["adapter"]["lora_dropout"] = 0.1
    recipe_tree["data"]["max_train_samples"] = 13
    recipe_tree["train"] |= {"max_steps": 3, "eval_steps": 3}
    *command, _ = launch_command(layout, free_port())
    script = str(REPOSITORY / "tests" / "selftest" / "same_steps.py")
    done = subprocess.run(
        [*command, script, str(write_recipe(tmp_path, recipe_tree))],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1:] == ["equal"], (done.stdout + done.stderr)[-4000:]
