"""What lies between the ranks: one all-reduce with its bandwidth, their clocks, their tokens."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from peftune.engines.ranks import Ranks
from peftune.engines.section import PreflightName
from peftune.preflight.checks import MOST_SKEW_S

SMALL, LARGE = 65_536, 4_194_304
"""Bytes of the first all-reduces, and of those that are only made where these were quick."""
TIMES, MOST_TIMES = 3, 20
"""How often each is made, and how often the first where the machine may just be busy."""
BUDGET_S = 5.0
MEGABYTE = 1e6


@dataclass(frozen=True)
class Link:
    """One rank as the others meet it."""

    rank: int
    host: str
    clock: float
    """Seconds since 1970, right after a collective that all have left together."""
    bandwidth: float
    """Bytes per second of the largest all-reduce, the best of some."""
    to_main: float
    """Bytes per second between this rank and rank 0 alone; 0 for rank 0."""
    stores: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


def measured_links(ranks: Ranks, stores: Mapping[str, str], slow: float) -> list[Link]:
    """Of all ranks, on every rank; a collective. `slow` is in bytes per second: below it each rank is
    measured alone with rank 0, to tell whose link it is."""
    bandwidth = all_reduce_bandwidth(ranks, slow)
    clock = time.time()
    to_main = pair_bandwidth(ranks) if bandwidth < slow else 0.0
    own = Link(ranks.rank, socket.gethostname(), clock, bandwidth, to_main, dict(stores))
    links: list[Link] = ranks.gather_objects([own])
    return links


def all_reduce_bandwidth(ranks: Ranks, slow: float) -> float:
    """Bytes per second, the same on every rank. It stops when it has taken long enough."""
    best, spent_s = 0.0, 0.0
    for size in (SMALL, LARGE):
        for count in range(MOST_TIMES):
            if spent_s > BUDGET_S or (count >= TIMES and best >= slow):
                break
            seconds = all_reduce_seconds(ranks, size)
            best, spent_s = max(best, size / seconds), spent_s + seconds
        if best < slow:
            break
    return best


def all_reduce_seconds(ranks: Ranks, size: int) -> float:
    """Of one all-reduce, by the clock of the slowest rank."""
    tensor = torch.zeros(size // 4, device=ranks.device)
    ranks.wait()
    began = time.perf_counter()
    torch.distributed.all_reduce(tensor)
    # Its result is there when a number of it can be read.
    tensor[0].item()
    spent = torch.tensor(time.perf_counter() - began, dtype=torch.float64, device=ranks.device)
    torch.distributed.all_reduce(spent, op=torch.distributed.ReduceOp.MAX)
    return float(spent)


def pair_bandwidth(ranks: Ranks) -> float:
    """Bytes per second of a message to rank 0 and back, each rank in turn."""
    tensor, found = torch.zeros(SMALL // 4, device=ranks.device), 0.0
    for other in range(1, ranks.world_size):
        began = time.perf_counter()
        if ranks.is_main:
            torch.distributed.recv(tensor, src=other)
            torch.distributed.send(tensor, dst=other)
        elif ranks.rank == other:
            torch.distributed.send(tensor, dst=0)
            torch.distributed.recv(tensor, src=0)
            found = 2 * SMALL / (time.perf_counter() - began)
        ranks.wait()
    return found


def check_link(links: list[Link], slow: float) -> Iterator[str]:
    """The slowest link will do."""
    bandwidth = links[0].bandwidth
    if bandwidth >= slow:
        return
    others = [link for link in links if link.to_main and link.to_main < slow] or links[1:]
    names = ", ".join(
        f"{link.name} ({link.to_main / MEGABYTE:.3g} MB/s to rank 0)" for link in others
    )
    yield (
        f"an all-reduce moves {bandwidth / MEGABYTE:.3g} MB/s, and ranks.min_bandwidth is "
        f"{slow / MEGABYTE:g}; the slow link is that of {names}. Look at its cable and interface "
        "(GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME), or lower ranks.min_bandwidth."
    )


def check_clock(links: list[Link], slow: float) -> Iterator[str]:
    """The clocks agree with that of the most."""
    clocks = sorted(link.clock for link in links)
    middle = clocks[(len(clocks) - 1) // 2]
    for link in links:
        skew_s = link.clock - (links[0].clock if len(links) == 2 else middle)
        if abs(skew_s) > MOST_SKEW_S:
            way = "ahead of" if skew_s > 0 else "behind"
            yield (
                f"the clock of {link.name} is {abs(skew_s):,.0f} s {way} the others; set it (chronyc "
                "makestep, or the time service of the node)."
            )


def check_data(links: list[Link], slow: float) -> Iterator[str]:
    """All ranks train on the same tokens."""
    for link in links:
        if link.stores != links[0].stores:
            yield (
                f"{link.name} has made other tokens than rank 0 from the same recipe: its data, its "
                "tokenizer or template differ; give all nodes the same files, or one PEFTUNE_CACHE."
            )


CHECKS: Mapping[PreflightName, Callable[[list[Link], float], Iterator[str]]] = {
    "clock": check_clock,
    "link": check_link,
    "data": check_data,
}
