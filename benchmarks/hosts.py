"""Two hosts on one machine, each with a network, an address and a name of its own, and what happens to
a run on both when the link between them or one of them fails.

python benchmarks/hosts.py [--engines cpu_ddp,cpu_zero3] [--only delay,cut,dead,frozen,slow]

Needs root (network namespaces, a veth pair, tc tbf, TUN devices). For each engine: an undisturbed run;
the link cut in the middle; all processes of one host killed; all of them stopped; and a run whose link
takes 50 ms each way. Where the run ends it must say who, on which host and where, within the bound, and
go on exactly. `slow` is a link of 1 Mbit/s, which the preflight must refuse. Each result is a JSON line.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import yaml
from kills import RECIPE

REPOSITORY = Path(__file__).resolve().parent.parent
HOSTS = ("peftune-a", "peftune-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINKS = ("peftune-va", "peftune-vb")
PORT, STEPS, SILENT_S = "29555", 12, 10
SLOW = "rate 1mbit burst 16kb latency 500ms"
DELAY_S = 0.05
SAME = ("adapter_model.safetensors", "metrics.jsonl", "eval_results.json", "predictions.jsonl")


def system(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def network(delay_s: float = 0.0) -> Iterator[None]:
    """Two namespaces joined by a cable, or by one that takes its time."""
    relay: list[subprocess.Popen[bytes]] = []
    try:
        for host in HOSTS:
            system("ip", "netns", "add", host)
        if delay_s:
            relay.append(delayed_cable(delay_s))
        else:
            system("ip", "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1])
            for host, link in zip(HOSTS, LINKS, strict=True):
                system("ip", "link", "set", link, "netns", host)
        for host, link, address in zip(HOSTS, LINKS, ADDRESSES, strict=True):
            inside = ("ip", "netns", "exec", host, "ip")
            system(*inside, "address", "add", f"{address}/24", "dev", link)
            system(*inside, "link", "set", link, "up")
            system(*inside, "link", "set", "lo", "up")
        yield
    finally:
        for process in relay:
            process.kill()
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], check=False)


def delayed_cable(delay_s: float) -> subprocess.Popen[bytes]:
    """The process that is the cable, when both of its ends are there."""
    ends = [word for pair in zip(HOSTS, LINKS, strict=True) for word in pair]
    script = Path(__file__).with_name("cable.py")
    process = subprocess.Popen([sys.executable, str(script), str(delay_s), *ends])
    while subprocess.run(
        ["ip", "netns", "exec", HOSTS[1], "ip", "link", "show", LINKS[1]], capture_output=True
    ).returncode:
        if process.poll() is not None:
            raise SystemExit("the cable has ended")
        time.sleep(0.1)
    return process


@contextmanager
def slow_cable() -> Iterator[None]:
    """Both ends send 1 Mbit in a second."""
    queues = [("ip", "netns", "exec", host, "tc", "qdisc") for host in HOSTS]
    for queue, link in zip(queues, LINKS, strict=True):
        system(*queue, "add", "dev", link, "root", "tbf", *SLOW.split())
    try:
        yield
    finally:
        for queue, link in zip(queues, LINKS, strict=True):
            system(*queue, "delete", "dev", link, "root")


def cable(state: str) -> None:
    system("ip", "netns", "exec", HOSTS[1], "ip", "link", "set", LINKS[1], state)


@dataclass
class Started:
    """A run on both hosts."""

    run: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def said(self) -> str:
        return "".join(
            log.read_text() for log in sorted(self.run.parent.glob(f"{self.run.name}.*.log"))
        )

    def step(self) -> int:
        log = self.run / "metrics.jsonl"
        return log.read_text().count('"loss"') if log.is_file() else 0

    def after_steps(self, count: int) -> None:
        while self.step() < count:
            if self.nodes[0].poll() is not None:
                raise SystemExit(self.said[-4000:])
            time.sleep(0.05)

    def signal(self, node: int, number: signal.Signals) -> None:
        os.killpg(self.nodes[node].pid, number)

    def running(self) -> list[subprocess.Popen[bytes]]:
        """The hosts whose processes have not ended."""
        return [node for node in self.nodes if node.poll() is None]

    def codes(self) -> list[int]:
        return [node.wait(1200) for node in self.nodes]


@dataclass(frozen=True)
class Oddity:
    """What is different on the second host, before its rank starts."""

    environ: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    """Shell commands in namespaces of mounts and names of its own."""
    nodes: int = len(HOSTS)
    recipe: Path | None = None


NOTHING = Oddity()


def start(
    recipe: Path, run: Path, engine: str, restarts: int = 0, oddity: Oddity = NOTHING
) -> Started:
    """The ranks of both hosts, as a scheduler starts them."""
    started = Started(run)
    for number, (host, link) in enumerate(zip(HOSTS, LINKS, strict=True)):
        odd = oddity if number else NOTHING
        node = [
            sys.executable,
            "-P",
            "-m",
            "peftune.node",
            "--nodes",
            str(odd.nodes),
            "--processes",
        ]
        node += ["1", "--config-file", str(REPOSITORY / "accelerate_configs" / f"{engine}.yaml")]
        node += ["--node-rank-from", "NODE", str(odd.recipe or recipe), f"output_dir={run}"]
        node += [f"ranks.silent_s={SILENT_S}"]
        named = "; ".join(["set -e", f"hostname {host}", *odd.commands, 'exec "$@"'])
        place = [
            "ip",
            "netns",
            "exec",
            host,
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-c",
            named,
            "sh",
        ]
        names = {"NODE": str(number), "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT}
        names |= {"PEFTUNE_JOB": f"hosts-{run.name}", "PEFTUNE_RESTARTS": str(restarts)}
        names |= {"GLOO_SOCKET_IFNAME": link, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        names |= {"PEFTUNE_CACHE": str(run.parent / "cache")}
        with Path(f"{run}.{number}.log").open("a") as log:
            process = subprocess.Popen(
                [*place, *node],
                env={**os.environ, **names, **odd.environ},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.nodes.append(process)
    return started


def cut(started: Started) -> None:
    cable("down")


def dead(started: Started) -> None:
    started.signal(1, signal.SIGKILL)


def frozen(started: Started) -> None:
    started.signal(1, signal.SIGSTOP)


DISTURBANCES: dict[str, Callable[[Started], None]] = {"cut": cut, "dead": dead, "frozen": frozen}


def disturbed(name: str, recipe: Path, run: Path, engine: str, undisturbed: Path) -> None:
    """Break it after some steps, read what it says, mend it, and let it go on."""
    started = start(recipe, run, engine)
    started.after_steps(5)
    DISTURBANCES[name](started)
    began = time.monotonic()
    code = started.nodes[0].wait(600)
    seconds = time.monotonic() - began
    if name == "frozen":
        started.signal(1, signal.SIGKILL)
    if name == "cut":
        # The host on the other side of the cut ends by itself as well.
        started.codes()
        cable("up")
    lines = re.findall(r"error: (.*); this run ends on every rank", started.said)
    started.codes()
    again = start(recipe, run, engine, restarts=1)
    ended = again.codes()
    report(engine, name, seconds, [code], lines, ended, run, undisturbed)


def report(
    engine: str,
    name: str,
    seconds: float,
    codes: list[int],
    said: list[str],
    ended: list[int],
    run: Path,
    undisturbed: Path,
) -> None:
    same = [file for file in SAME if digest(run / file) == digest(undisturbed / file)]
    result = {"engine": engine, "case": name, "seconds": round(seconds, 1), "codes": codes}
    result |= {"said": said, "resumed": ended, "same": len(same) == len(SAME)}
    print(json.dumps(result), flush=True)


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest() if file.is_file() else f"no {file}"


def refused(recipe: Path, run: Path, engine: str) -> None:
    """A link that the preflight must not let pass."""
    began = time.monotonic()
    with slow_cable():
        started = start(recipe, run, engine)
        codes = started.codes()
    lines = re.findall(r"error: (preflight, .*)", started.said)
    result = {"engine": engine, "case": "slow", "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**result, "codes": codes, "said": lines}), flush=True)


def main() -> None:
    """All cases of all engines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", default="cpu_ddp,cpu_zero3")
    parser.add_argument("--only", default="delay,cut,dead,frozen,slow")
    chosen = parser.parse_args()
    cases = chosen.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "recipe.yaml"
        train = RECIPE["train"] | {"max_steps": STEPS}
        recipe.write_text(yaml.safe_dump({**RECIPE, "train": train}), encoding="utf-8")
        for engine in chosen.engines.split(","):
            with network():
                undisturbed = whole(recipe, folder / f"{engine}-undisturbed", engine)
                for case in (case for case in cases if case in DISTURBANCES):
                    disturbed(case, recipe, folder / f"{engine}-{case}", engine, undisturbed)
                if "slow" in cases:
                    refused(recipe, folder / f"{engine}-slow", engine)
            if "delay" in cases:
                with network(DELAY_S):
                    whole(recipe, folder / f"{engine}-delay", engine, undisturbed)


def whole(recipe: Path, run: Path, engine: str, undisturbed: Path | None = None) -> Path:
    """A run that nothing ends, compared with another."""
    began = time.monotonic()
    codes = start(recipe, run, engine).codes()
    case = run.name.removeprefix(f"{engine}-")
    seconds = time.monotonic() - began
    report(engine, case, seconds, codes, [], codes, run, undisturbed or run)
    return run


if __name__ == "__main__":
    main()
