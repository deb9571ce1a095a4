"""How ranks find each other: each says in a common store who it is, and reads who else has come.

A launcher gives every rank the address of the first, its number and how many there are. What can be
wrong about that is found here within seconds, where a process group would wait for half an hour: nobody
at that address, a number that two processes have, other opinions on how many there are, a rank that
ended before it came.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from peftune.engines.launch import Launch
from peftune.engines.section import RanksSection
from peftune.errors import LaunchError, PeftuneError

NAMED_AFTER_S = 10.0
"""Seconds after which those who wait say for whom."""
POLL_S = 0.05
TELLING_S = 15.0
"""How long a rank that has failed looks for one to tell."""
CONNECT_S = 3.0
GROUP_S = 1800.0
"""How long a process group may take to form: the first to come may still wait for its rows."""
LEAVING_S = 2.0
"""How long rank 0 keeps the store for others to read why nothing comes of it."""


@dataclass(frozen=True)
class Arrival:
    """A process that has come."""

    rank: int
    world_size: int
    host: str
    pid: int
    facts: Mapping[str, Any]
    """What it knows of its machine."""
    error: str = ""
    """Why it cannot stay."""

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


@dataclass(frozen=True)
class Meeting:
    """All ranks, in rank order, and the store that they share."""

    arrivals: tuple[Arrival, ...]
    store: Any


def meet(launch: Launch, facts: Mapping[str, Any], patience: RanksSection) -> Meeting:
    """Come, and wait for all others. Raises LaunchError that names who is missing or wrong."""
    from torch.distributed import DistError, PrefixStore

    own = arrival_of(launch, facts)
    # A launcher that restarts its ranks keeps one store: those before left their names in it.
    store = PrefixStore(f"peftune-{launch.restarts}", reached_store(launch, own, patience.wait_s))
    try:
        announce(store, own)
        arrivals = waited_for(store, own, patience.wait_s)
    except DistError as error:
        raise LaunchError("rank 0 ended before all had come; its own output says why.") from error
    store.set_timeout(timedelta(seconds=GROUP_S))
    return Meeting(tuple(sorted(arrivals, key=lambda arrival: arrival.rank)), store)


def arrival_of(launch: Launch, facts: Mapping[str, Any], error: str = "") -> Arrival:
    """This process."""
    host = socket.gethostname()
    return Arrival(launch.rank, launch.world_size, host, os.getpid(), facts, error)


def tell(launch: Launch, error: PeftuneError) -> None:
    """Let rank 0 know that this one ends before they have met; it speaks for all."""
    from torch.distributed import DistError, PrefixStore

    own = arrival_of(launch, {}, str(error))
    with suppress(LaunchError, DistError):
        reached = reached_store(launch, own, TELLING_S, quiet=True)
        announce(PrefixStore(f"peftune-{launch.restarts}", reached), own)


def reached_store(launch: Launch, own: Arrival, wait_s: float, quiet: bool = False) -> Any:
    """The store at the launcher's address; rank 0 opens it where the launcher has not."""
    from torch.distributed import DistError, TCPStore

    held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    is_master = launch.rank == 0 and not held_by_launcher
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not is_master:
        wait_for_answer(host, port, own, wait_s, quiet)
    try:
        return TCPStore(
            host,
            port,
            launch.world_size,
            is_master=is_master,
            timeout=timedelta(seconds=GROUP_S),
            wait_for_workers=False,
        )
    except DistError as error:
        raise LaunchError(
            f"{own.name} cannot {'listen' if is_master else 'join'} at {host}:{port} "
            f"({str(error).splitlines()[0][:200]}): another process has the port, or a second one was "
            "started as rank 0; end it or choose another port."
        ) from error


def wait_for_answer(host: str, port: int, own: Arrival, wait_s: float, quiet: bool) -> None:
    """Return when something listens at the address. Raises LaunchError when nothing does in time."""
    began, named = time.monotonic(), quiet
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        waited_s = time.monotonic() - began
        problem = (
            f"{own.name} cannot reach rank 0 at {host}:{port} ({reason}); start it, open the port in the "
            "firewall between the nodes, or correct the address (--main_process_ip)."
        )
        if waited_s > wait_s:
            # Nobody else can speak for it.
            say(problem)
            raise LaunchError(problem)
        if waited_s > NAMED_AFTER_S and not named:
            named = True
            say(f"{problem} Trying for {wait_s - waited_s:.0f} s more.")
        time.sleep(POLL_S)


def announce(store: Any, own: Arrival) -> None:
    """Write into the store who has come."""
    number = store.add("arrivals", 1)
    store.set(f"arrival-{number}", json.dumps(own.__dict__))


def waited_for(store: Any, own: Arrival, wait_s: float) -> list[Arrival]:
    """Everyone, when all have come."""
    began, named = time.monotonic(), False
    for arrivals in growing(store):
        waited_s = time.monotonic() - began
        problem = wrong(arrivals)
        if problem is None and len(arrivals) == own.world_size:
            return arrivals
        if problem is None and waited_s > wait_s:
            problem = f"{missing(arrivals, own.world_size)} after {wait_s:.0f} s. {CURE}"
        if problem is not None:
            leave_together(store, own, len(arrivals))
            raise LaunchError(problem)
        if waited_s > NAMED_AFTER_S and not named:
            named = True
            left = f"The run ends in {wait_s - waited_s:.0f} s without them."
            if own.rank == 0:
                say(f"{missing(arrivals, own.world_size)} after {waited_s:.0f} s. {CURE} {left}")
    raise AssertionError("a store does not end")


CURE = (
    "Look at the output of the missing nodes: they were not started, ended before they came, or cannot "
    "reach this address; the launcher's files must agree on the number of processes."
)


def growing(store: Any) -> Iterator[list[Arrival]]:
    """All who have come, again and again."""
    arrivals: list[Arrival] = []
    while True:
        for number in range(len(arrivals) + 1, store.add("arrivals", 0) + 1):
            arrivals.append(Arrival(**json.loads(store.get(f"arrival-{number}"))))
        yield arrivals
        time.sleep(POLL_S)


def wrong(arrivals: list[Arrival]) -> str | None:
    """What those who have come cannot agree on."""
    # First, whoever came first: a recipe may fit one number of processes and not the other.
    for arrival in arrivals:
        if arrival.world_size != arrivals[0].world_size:
            sizes = [f"{one.world_size} on {one.name}" for one in (arrivals[0], arrival)]
            return (
                f"the number of processes is {' and '.join(sizes)}; give every node the same "
                "--num_processes and --num_machines."
            )
    by_rank: dict[int, Arrival] = {}
    for arrival in arrivals:
        if arrival.error:
            return f"{arrival.name}: {arrival.error}"
        other = by_rank.setdefault(arrival.rank, arrival)
        if other is not arrival:
            return (
                f"two processes are rank {arrival.rank}: {other.pid} on {other.host} and {arrival.pid} "
                f"on {arrival.host}; give every node its own --machine_rank."
            )
    return None


def missing(arrivals: list[Arrival], world_size: int) -> str:
    """Who has not come, and who has."""
    here = {arrival.rank for arrival in arrivals}
    absent = [str(rank) for rank in range(world_size) if rank not in here]
    hosts = ", ".join(f"{arrival.name}" for arrival in arrivals[:8])
    ranks = f"rank {absent[0]} has" if len(absent) == 1 else f"ranks {', '.join(absent[:16])} have"
    return f"{ranks} not come to {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} (here: {hosts})"


def leave_together(store: Any, own: Arrival, present: int) -> None:
    """Rank 0 takes the store with it, so it goes when the others have read what it has."""
    store.add("leaving", 1)
    deadline = time.monotonic() + LEAVING_S
    while own.rank == 0 and store.add("leaving", 0) < present and time.monotonic() < deadline:
        time.sleep(POLL_S)


def say(text: str) -> None:
    """A line on stderr, at once."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
