"""Every benchmark runs; how fast is for people to read."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.launching import environment


def test_preparation_is_measured(model_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "prepare.py")]
    done = subprocess.run(
        [*command, "--model", str(model_folder), "--rows", "40"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["rows"] for line in found] == [40]
    assert all(line["rows_per_second"] > 0 and line["tokenizer_alone"] > 0 for line in found)
