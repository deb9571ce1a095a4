"""The preflight in order: who is there, what each has, and what lies between them."""

import socket
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace

from peftune.engines.launch import Launch
from peftune.engines.meeting import Meeting, meet, say
from peftune.engines.ranks import Ranks
from peftune.engines.section import PreflightName
from peftune.errors import LaunchError
from peftune.preflight.checks import CHECKS, Node
from peftune.preflight.facts import Disk, Facts, facts_of
from peftune.preflight.link import CHECKS as LINK_CHECKS
from peftune.preflight.link import MEGABYTE, measured_links
from peftune.preparation import Prepared
from peftune.recipe import Recipe

Named = tuple[PreflightName, str]


def preflight(recipe: Recipe, launch: Launch) -> Meeting | None:
    """Meet all other ranks and judge what they have; None for a single process.

    Raises LaunchError that names node and cure, the same on every rank.
    """
    facts = facts_of(recipe, launch)
    if launch.world_size == 1:
        # What is wrong with the model is told with its key when it is loaded, which is at once.
        alone = Node(0, socket.gethostname(), replace(facts, weights_problem=""))
        judge(found([alone]), recipe.ranks.accept, is_main=True)
        return None
    meeting = meet(launch, asdict(facts), recipe.ranks)
    nodes = [Node(one.rank, one.host, facts_from(one.facts)) for one in meeting.arrivals]
    judge(found(nodes), recipe.ranks.accept, launch.rank == 0)
    return meeting


def facts_from(values: object) -> Facts:
    """What another rank has sent."""
    assert isinstance(values, dict)
    return Facts(**{**values, "disks": tuple(Disk(**disk) for disk in values["disks"])})


def found(nodes: list[Node]) -> Iterable[Named]:
    """Every problem with the name of its check."""
    for name, check in CHECKS.items():
        yield from ((name, line) for line in check(nodes))


def check_links(ranks: Ranks, recipe: Recipe, prepared: Prepared) -> None:
    """Judge what lies between connected ranks; a collective. Raises LaunchError on every rank."""
    if ranks.world_size == 1:
        return
    slow = recipe.ranks.min_bandwidth * MEGABYTE
    stores = {str(split): store for split, store in prepared.stores.items()}
    links = measured_links(ranks, stores, slow)
    problems = [(name, line) for name, check in LINK_CHECKS.items() for line in check(links, slow)]
    judge(problems, recipe.ranks.accept, ranks.is_main)


def judge(problems: Iterable[Named], accepted: Collection[str], is_main: bool) -> None:
    """Warn of what is accepted. Raises LaunchError with a line for each other problem."""
    refused = []
    for name, line in problems:
        if name not in accepted:
            refused.append(f"preflight, {name}: {line}")
        elif is_main:
            say(f"preflight, {name}, accepted: {line}")
    if refused:
        raise LaunchError("\n".join(refused))
