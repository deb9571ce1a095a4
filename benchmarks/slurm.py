"""A real SLURM on this machine, and a run on it that is disturbed in every way SLURM knows.

python benchmarks/slurm.py [--recipe FILE] [--only signal,node,limit] [section.key=value …]

Needs root, and Debian's slurmctld, slurmd, slurm-client and munge. Two nodes with names and ports of
their own are this host twice. The undisturbed run comes first; then the same is asked to stop by
`scancel --signal`, loses a node, and runs into its time limit. Each of these must end as a job that was
queued again and finishes with the undisturbed run's adapter, bit for bit. Results are JSON.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NODES = ("peftune-n1", "peftune-n2")
PORTS = (27101, 27102)
SECONDS = 3600
CONFIG = """\
ClusterName=peftune
SlurmctldHost={host}
SlurmctldPort=27100
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/linear
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
JobRequeue=1
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Two nodes that wait for jobs; gives the environment of their clients."""
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True).stdout.strip()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 State=UNKNOWN"
        for name, port in zip(NODES, PORTS, strict=True)
    )
    (folder / "state").mkdir()
    text = CONFIG.format(host=host, folder=folder, nodes=nodes, names=",".join(NODES))
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    started = [*munge(folder), daemon(["slurmctld", "-D"], environment)]
    started += [daemon(["slurmd", "-D", "-N", name], environment) for name in NODES]
    try:
        with named_in_hosts():
            wait_until(lambda: says(["sinfo", "-h", "-o", "%T"], environment) == "idle", 60)
            yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def munge(folder: Path) -> list[subprocess.Popen[bytes]]:
    """The daemon that SLURM's own programs know each other by, with a key of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    options = [f"--{name}={path}" for name, path in files.items()]
    process = daemon(["munged", "--foreground", "--force", *options], dict(os.environ))
    wait_until(lambda: (folder / "munge.socket").exists() or None, 20)
    return [process]


def daemon(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, **quiet)


@contextmanager
def named_in_hosts() -> Iterator[None]:
    """As on a cluster, the nodes' names are those of hosts."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(f"{before.rstrip()}\n127.0.0.1 {' '.join(NODES)}\n")
    try:
        yield
    finally:
        hosts.write_text(before)


def says(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s in vain")
        time.sleep(0.5)


class Cluster:
    """The scheduler as a user has it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def launch(self, recipe: Path, run: Path, *more: str) -> str:
        """The number of the training job of a run, which is queued behind its preparation."""
        command = [sys.executable, "-m", "peftune", "launch", str(recipe), f"output_dir={run}"]
        command += ["--on", "slurm", "--nodes", str(len(NODES)), *more]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True
        )
        found = re.search(r"job (\d+) prepares, job (\d+) trains after it", done.stdout)
        if found is None:
            raise SystemExit(done.stdout + done.stderr)
        return found[2]

    def field(self, job: str, name: str) -> str:
        """What SLURM knows of a job."""
        shown = says(["scontrol", "show", "job", job], self.environment)
        found = re.search(rf"\b{name}=(\S*)", shown)
        return found[1] if found else ""

    def finish(self, job: str) -> dict[str, str]:
        """Wait for the end of a job; one that is queued again need not wait for its turn."""

        def ended() -> bool:
            state = self.field(job, "JobState")
            if state == "PENDING" and self.field(job, "Restarts") != "0":
                says(["scontrol", "update", f"JobId={job}", "StartTime=now"], self.environment)
            return state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        wait_until(ended)
        return {name: self.field(job, name) for name in ("JobState", "ExitCode", "Restarts")}


def steps_of(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_text().count('"loss"') if log.is_file() else 0


def after_steps(run: Path, count: int) -> None:
    wait_until(lambda: steps_of(run) >= count)


def asked_to_stop(cluster: Cluster, job: str, run: Path) -> None:
    after_steps(run, 3)
    says(["scancel", "--signal=TERM", job], cluster.environment)


def node_down(cluster: Cluster, job: str, run: Path) -> None:
    """Without a signal: what was computed since the last checkpoint is computed again."""
    after_steps(run, 5)
    node = f"nodename={NODES[1]}"
    says(["scontrol", "update", node, "state=down", "reason=test"], cluster.environment)
    wait_until(lambda: cluster.field(job, "Restarts") == "1")
    says(["scontrol", "update", node, "state=resume"], cluster.environment)


def time_limit(cluster: Cluster, job: str, run: Path) -> None:
    """SLURM counts in minutes: the run is told to stop well before the end of the second."""


DISTURBANCES = {"signal": asked_to_stop, "node": node_down, "limit": time_limit}


def digest(run: Path, name: str) -> str:
    return sha256((run / name).read_bytes()).hexdigest()


def main() -> None:
    """Run undisturbed, then with each disturbance, and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "recipes" / "summarize.yaml")
    parser.add_argument("--only", default=",".join(DISTURBANCES))
    parser.add_argument("--minutes", type=int, default=2, help="the time limit of `limit`")
    parser.add_argument("--grace", type=int, default=90, help="seconds before it to stop at")
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at afterwards")
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    # Daemons are ended on the way out, however that is.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="peftune-slurm-"))
    runs = chosen.keep or folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    limits = ["--minutes", str(chosen.minutes), "--grace", str(chosen.grace)]
    with cluster(folder) as environment:
        slurm = Cluster(environment)
        job = slurm.launch(chosen.recipe, runs / "undisturbed", *chosen.overrides)
        report(runs / "undisturbed", "undisturbed", slurm.finish(job), runs / "undisturbed")
        for name in chosen.only.split(","):
            disturb, run = DISTURBANCES[name], runs / name
            more = limits if name == "limit" else []
            job = slurm.launch(chosen.recipe, run, *chosen.overrides, *more)
            disturb(slurm, job, run)
            report(run, name, slurm.finish(job), runs / "undisturbed")
    shutil.rmtree(folder, ignore_errors=True)


def report(run: Path, name: str, ended: dict[str, str], undisturbed: Path) -> None:
    """One line of JSON."""
    files = ("adapter_model.safetensors", "metrics.jsonl", "eval_results.json")
    done = (run / "all_results.json").is_file()
    same = {file: done and digest(run, file) == digest(undisturbed, file) for file in files}
    print(json.dumps({"run": name, **ended, "steps": steps_of(run), "same": same}), flush=True)


if __name__ == "__main__":
    main()
