"""Ten faults planted into the second of two hosts: who names them, in which words, after how long.

python benchmarks/faults.py [--only port,clock]

Two hosts on one machine as in hosts.py; needs root, and a C compiler for the clock. Each fault is a real
one of that host alone: other files in front of its packages, an empty folder mounted over its model, a
disk of 5 MB mounted over its cache, a library that adds an hour to its clock, and so on. Prints a JSON
line for each, with the seconds from starting the processes, imports and all.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import yaml
from hosts import ADDRESSES, Oddity, network, slow_cable, start
from kills import RECIPE

from peftune.embedded import embedded_path

HOUR_AHEAD = """
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += 3600;
    return code;
}
"""
SAID = re.compile(r"^(?:error|warning): (.*)", re.MULTILINE)
MOST_S = 40.0
LITTLE = "MemTotal: 8000000 kB\nMemAvailable: 1000 kB\n"


def version(folder: Path) -> Oddity:
    """Another peft by its name and number."""
    info = folder / "older" / "peft-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n")
    return Oddity({"PYTHONPATH": str(info.parent)})


def recipe(folder: Path) -> Oddity:
    """One number of the recipe."""
    other = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"seed": 7}
    (folder / "other.yaml").write_text(yaml.safe_dump(other))
    return Oddity(recipe=folder / "other.yaml")


def weights(folder: Path) -> Oddity:
    return Oddity(commands=[f"mount -t tmpfs none {folder / 'model'}"])


def disk(folder: Path) -> Oddity:
    return Oddity(commands=[f"mount -t tmpfs -o size=5m none {folder / 'cache'}"])


def clock(folder: Path) -> Oddity:
    """Every call that asks for the time of day is answered with an hour more."""
    source, library = folder / "ahead.c", folder / "ahead.so"
    source.write_text(HOUR_AHEAD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return Oddity({"LD_PRELOAD": str(library)})


def port(folder: Path) -> Oddity:
    """A port at which nobody listens."""
    return Oddity({"MASTER_PORT": "29556"})


def link(folder: Path) -> Oddity:
    """The host is as it should be; the cable is not."""
    return Oddity()


def memory(folder: Path) -> Oddity:
    """What the system says of its memory."""
    (folder / "meminfo").write_text(LITTLE)
    return Oddity(commands=[f"mount --bind {folder / 'meminfo'} /proc/meminfo"])


def world(folder: Path) -> Oddity:
    return Oddity(nodes=3)


def twice(folder: Path) -> Oddity:
    """The number of the first host."""
    return Oddity({"NODE": "0", "MASTER_ADDR": ADDRESSES[0]})


FAULTS: dict[str, Callable[[Path], Oddity]] = {
    one.__name__: one
    for one in (version, recipe, weights, disk, clock, port, link, memory, world, twice)
}


def written(folder: Path) -> Path:
    """A recipe on a model in a folder."""
    shutil.copytree(embedded_path("embedded:decoder"), folder / "model")
    (folder / "cache").mkdir()
    model = {"model_name_or_path": str(folder / "model"), "dtype": "float32"}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "model": model}), encoding="utf-8")
    return path


def main() -> None:
    """All of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(FAULTS))
    for name in parser.parse_args().only.split(","):
        cable = slow_cable() if name == link.__name__ else nullcontext()
        with tempfile.TemporaryDirectory() as place, network(), cable:
            print(json.dumps({"fault": name, **tried(name, Path(place))}), flush=True)


def tried(name: str, folder: Path) -> dict[str, object]:
    """One fault: seconds until a line names it and until both hosts have ended, exit codes, all lines.

    A host that waits for another says for whom long before it gives up; it is ended then.
    """
    usual = written(folder)
    oddity = FAULTS[name](folder)
    began = time.monotonic()
    started = start(usual, folder / "run", "cpu_ddp", oddity=oddity)
    while not SAID.search(started.said) and time.monotonic() - began < MOST_S:
        time.sleep(0.1)
    named = time.monotonic() - began
    while started.running() and time.monotonic() - began < MOST_S:
        time.sleep(0.1)
    ended = None if started.running() else round(time.monotonic() - began, 1)
    for node in started.running():
        os.killpg(node.pid, signal.SIGKILL)
    said = {"codes": started.codes(), "said": SAID.findall(started.said)}
    return {"named_s": round(named, 1), "ended_s": ended, **said}


if __name__ == "__main__":
    main()
