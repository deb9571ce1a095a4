"""Tries the regular expressions of an adapter on a model's names, in a process that may take a second.

peft matches them with `re`, which knows no limit of time: `(a+)+b` on forty letters runs for years.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from peftune.errors import UnsafeFileError
from peftune.untrusted.json_file import shown

SECONDS, MEMORY = 1, 2**30
PLAIN = re.compile(r"[\w.\-]*")
FORMS = ("{}", r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")
"""How peft asks for a whole name, the end of one, and the number of a layer."""
CODE = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
patterns, names = json.load(sys.stdin)
for index, forms in enumerate(patterns):
    print(index, flush=True)
    for form in forms:
        pattern = re.compile(form)
        for name in names:
            pattern.fullmatch(name), pattern.match(name)
"""


def check_patterns(
    patterns: Sequence[tuple[str, str]], names: Sequence[str], place: object
) -> None:
    """Raise UnsafeFileError for a pattern, given with its key, that is none or that takes too long.

    `names` are the model's modules; what is a plain name needs no trial.
    """
    tried = [one for one in patterns if not PLAIN.fullmatch(one[1])]
    if not tried:
        return
    forms = [[form.format(pattern) for form in FORMS] for _, pattern in tried]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE],
        input=json.dumps([forms, list(names)]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        key, pattern = tried[int((done.stdout.split() or ["0"])[-1])]
        raise UnsafeFileError(
            f"{place}: {key}: {shown(pattern)} {_problem(done.returncode)}; name the modules in a list."
        )


def _problem(status: int) -> str:
    if status < 0:
        return f"takes more than {SECONDS} s to be matched with the model's names"
    return "is no regular expression"


def patterns_of(config: Mapping[str, object]) -> list[tuple[str, str]]:
    """The texts of an adapter's configuration that peft takes for patterns, with their keys."""
    found: list[tuple[str, str]] = []
    for key in ("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern"):
        value = config.get(key)
        found += [(key, value)] if isinstance(value, str) else []
        found += (
            [(key, one) for one in value if key == "layers_pattern"]
            if isinstance(value, list)
            else []
        )
    for key in ("rank_pattern", "alpha_pattern"):
        value = config.get(key)
        found += [(key, one) for one in value] if isinstance(value, dict) else []
    return found
