"""The script that `accelerate launch` starts.

accelerate launch [--config_file FILE.yaml] peftune/run.py [--selftest] RECIPE [section.key=value …]
"""

import os
import sys
from pathlib import Path

# Launched as a script, Python puts this folder first on the path: `import peftune` would fail and
# every file here could shadow a library. The repository root belongs there instead.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from peftune.allocator import start_with_settings  # noqa: E402
from peftune.engines.launch import asks_for_cpu  # noqa: E402

GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Where the drivers of GPUs are reached, CUDA's, ROCm's and those of a Windows host."""

if __name__ == "__main__" and (asks_for_cpu(os.environ) or not any(map(os.path.exists, GPUS))):
    # Before anything is imported that would have to be imported again.
    start_with_settings()

from peftune.cli import report_errors, selftest_recipe, train_recipe  # noqa: E402

FLAGS = ("--debug", "--selftest")


def main() -> int:
    """Train, or with --selftest try out, the recipe of the first argument; returns the exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument not in FLAGS]
    debug, selftest = (flag in sys.argv for flag in FLAGS)
    if not arguments:
        print(__doc__.strip().splitlines()[-1], file=sys.stderr)
        return 2
    command = selftest_recipe if selftest else train_recipe
    return report_errors(debug, command, arguments[0], arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
