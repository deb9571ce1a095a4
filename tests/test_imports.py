"""What a training does without, everyone else still has."""

import subprocess
import sys

PROGRAM = """
import sys
from peftune.imports import leave_out_scipy
leave_out_scipy()
import transformers.loss.loss_utils
print("scipy" in sys.modules)
import scipy.stats
print(scipy.stats.rankdata([3.0, 1.0]).tolist())
"""


def test_transformers_finds_no_scipy_and_others_do() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[2.0, 1.0]"]


def test_it_would_be_loaded() -> None:
    kept = PROGRAM.replace("leave_out_scipy()\n", "")
    done = subprocess.run([sys.executable, "-c", kept], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "True"
