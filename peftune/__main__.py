"""`python -m peftune` is the `peftune` command, for machines that know the interpreter alone."""

from peftune.cli import main

main()
