"""Checks of the facts of all ranks: each gives a line for what is wrong, with node and cure."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from peftune.engines.section import PreflightName
from peftune.preflight.facts import Facts

SHOWN = 4
"""Differences that a line lists."""
MOST_SKEW_S = 30.0
"""Between two clocks; certificates, tickets and the times in logs go wrong beyond it."""


class Node(NamedTuple):
    """A rank with what it knows."""

    rank: int
    host: str
    facts: Facts

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


Nodes = Sequence[Node]


def check_versions(nodes: Nodes) -> Iterator[str]:
    """Every rank has the packages of the most."""
    for node, others in differing(nodes, lambda node: node.facts.versions):
        yield f"{node.name} has other packages than most: {others}; install the same ones there."


def check_recipe(nodes: Nodes) -> Iterator[str]:
    """Every rank was told the same."""
    for node, others in differing(nodes, lambda node: node.facts.recipe):
        yield f"{node.name} has another recipe than most: {others}; give all nodes the same file."


def check_weights(nodes: Nodes) -> Iterator[str]:
    """Every rank sees the same base weights."""
    for node in nodes:
        if node.facts.weights_problem:
            yield f"{node.name} cannot load the base model: {node.facts.weights_problem}"
    seeing = [node for node in nodes if not node.facts.weights_problem]
    for node, _ in differing(seeing, lambda node: {"weights": node.facts.weights}):
        yield (
            f"{node.name} sees other base weights than most (names, sizes or shapes differ); copy the "
            "model there again, or put it where all nodes see it."
        )


def check_memory(nodes: Nodes) -> Iterator[str]:
    """The weights of a host's ranks fit into its memory."""
    for host in sorted({node.host for node in nodes}):
        here = [node for node in nodes if node.host == host]
        needed = sum(node.facts.memory_needed for node in here)
        known = [n.facts.memory_free for n in here if n.facts.memory_free is not None]
        if known and min(known) < needed:
            ranks = ", ".join(str(node.rank) for node in here)
            yield (
                f"host {host} (rank {ranks}) has {size(min(known))} of memory free and the weights alone "
                f"take {size(needed)}; start fewer processes there, free memory, or quantize the base."
            )


def check_disk(nodes: Nodes) -> Iterator[str]:
    """There is room for what is written."""
    for node in nodes:
        for disk in node.facts.disks:
            if disk.free < disk.needed:
                yield (
                    f"{node.name} has {size(disk.free)} free at {disk.place} and needs "
                    f"{size(disk.needed)}; make room, or name another place (output_dir, PEFTUNE_CACHE)."
                )


def check_gpu(nodes: Nodes) -> Iterator[str]:
    """Every rank that is to have a GPU has one that works."""
    for node in nodes:
        if node.facts.gpu_problem:
            yield f"{node.name}: {node.facts.gpu_problem}; take the node out of the job, or free the GPU."


def differing(
    nodes: Nodes, values: Callable[[Node], Mapping[str, str]]
) -> Iterator[tuple[Node, str]]:
    """The nodes that differ from the most (of two as many, from rank 0), and in what."""
    kinds = Counter(tuple(sorted(values(node).items())) for node in nodes)
    if len(kinds) < 2:
        return
    # The first of equals is the one that was counted first.
    usual = dict(kinds.most_common(1)[0][0])
    for node in nodes:
        own = values(node)
        if own != usual:
            yield node, difference(own, usual)


def difference(own: Mapping[str, str], usual: Mapping[str, str]) -> str:
    """What is here and what is elsewhere."""
    keys = [key for key in sorted({*own, *usual}) if own.get(key) != usual.get(key)]
    listed = [f"{key} {own.get(key, 'none')}, not {usual.get(key, 'none')}" for key in keys[:SHOWN]]
    return "; ".join([*listed, *([f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else [])])


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


CHECKS: Mapping[PreflightName, Callable[[Nodes], Iterator[str]]] = {
    "versions": check_versions,
    "recipe": check_recipe,
    "weights": check_weights,
    "memory": check_memory,
    "disk": check_disk,
    "gpu": check_gpu,
}
"""What can be told before the ranks are connected; `link.py` has the rest."""
