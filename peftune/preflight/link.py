"""What lies between the ranks: one all-reduce with its bandwidth, their clocks, their tokens."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from peftune.engines.ranks import Ranks
from peftune.engines.section import PreflightName
from peftune.preflight.checks import MOST_SKEW_S

SIZES = (65_536, 4_194_304)
"""Bytes of the first all-reduce, and of one that is only made where the first was quick."""
QUICK_S = 0.05
TIMES = 3
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
    bandwidth = all_reduce_bandwidth(ranks)
    clock = time.time()
    to_main = pair_bandwidth(ranks) if bandwidth < slow else 0.0
    own = Link(ranks.rank, socket.gethostname(), clock, bandwidth, to_main, dict(stores))
    links: list[Link] = ranks.gather_objects([own])
    return links


def all_reduce_bandwidth(ranks: Ranks) -> float:
    """Bytes per second, the same on every rank: that of the slowest."""
    bandwidth = 0.0
    for size in SIZES:
        seconds = best_seconds(ranks, size)
        bandwidth = max(bandwidth, size / seconds)
        if seconds > QUICK_S:
            break
    return bandwidth


def best_seconds(ranks: Ranks, size: int) -> float:
    """Of some all-reduces, by the clock of the slowest rank."""
    tensor, times = torch.zeros(size // 4, device=ranks.device), []
    for _ in range(TIMES):
        began = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        times.append(time.perf_counter() - began)
    slowest = torch.tensor(min(times), dtype=torch.float64, device=ranks.device)
    torch.distributed.all_reduce(slowest, op=torch.distributed.ReduceOp.MAX)
    return float(slowest)


def pair_bandwidth(ranks: Ranks) -> float:
    """Bytes per second of a message to rank 0 and back, each rank in turn."""
    tensor, found = torch.zeros(SIZES[0] // 4, device=ranks.device), 0.0
    for other in range(1, ranks.world_size):
        began = time.perf_counter()
        if ranks.is_main:
            torch.distributed.recv(tensor, src=other)
            torch.distributed.send(tensor, dst=other)
        elif ranks.rank == other:
            torch.distributed.send(tensor, dst=0)
            torch.distributed.recv(tensor, src=0)
            found = 2 * SIZES[0] / (time.perf_counter() - began)
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
