"""Runs a command and prints, as the last line, the largest resident memory of one of its processes.

python benchmarks/peak.py COMMAND …
"""

import resource
import subprocess
import sys

if __name__ == "__main__":
    done = subprocess.run(sys.argv[1:], stdout=sys.stderr)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    sys.exit(done.returncode)
