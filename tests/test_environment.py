import json
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from peftune.environment import devices, pinned_versions, print_environment, verdicts, versions

CONSTRAINTS = """\
# Comment with nothing pinned.
peft==0.21.2
Torch==2.13.0 ; python_version >= "3.11"
"""


def test_versions_of_what_is_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("torch", "transformers", "peft", "accelerate", "datasets"):
        assert found[package] == version(package)


def test_what_is_missing_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr("peftune.environment.PACKAGES", ("peft", "no-such-package"))
    assert versions()["no-such-package"] == "not installed"


def test_constraints_are_read_with_their_markers():
    assert pinned_versions(CONSTRAINTS) == {"peft": "0.21.2", "torch": "2.13.0"}


@pytest.mark.parametrize(
    ("package", "found", "verdict"),
    [
        ("peft", "0.21.2", "tested: yes"),
        ("peft", "0.21.20", "tested: no, 0.21.2 is"),
        ("torch", "2.13.0+cu130", "tested: yes"),
        ("torch", "2.14.0", "tested: no, 2.13.0 is"),
    ],
)
def test_verdicts(package, found, verdict):
    assert verdicts({package: found}, CONSTRAINTS) == {package: verdict}


@pytest.mark.parametrize("found", [{"datasets": "5.2.0"}, {"peft": "not installed"}])
def test_no_verdict_on_what_is_not_pinned_or_not_there(found):
    assert verdicts(found, CONSTRAINTS) == {}


def test_versions_are_found_without_importing_torch():
    code = (
        "import json, sys; from peftune.environment import versions; found = versions();"
        "print(json.dumps([found['torch'], 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [version("torch"), False]


def test_a_computer_has_a_device():
    assert devices()[-1].startswith("CPU, ")


def test_the_command_prints_a_line_for_each(capsys):
    print_environment()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(versions()) + len(devices())
    assert any(line.split()[:2] == ["peft", version("peft")] for line in lines)
