"""The script that `accelerate launch` starts.

accelerate launch [--config_file accelerate_configs/FILE.yaml] peftune/run.py RECIPE [section.key=value …]
"""

import sys
from pathlib import Path

# Launched as a script, Python puts this folder first on the path: `import peftune` would fail and
# every file here could shadow a library. The repository root belongs there instead.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from peftune.cli import report_errors, train_recipe  # noqa: E402


def main() -> int:
    """Train the recipe named by the first argument; returns the exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not arguments:
        print(__doc__.strip().splitlines()[-1], file=sys.stderr)
        return 2
    return report_errors(debug, train_recipe, arguments[0], arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
