"""Lines between the ranks that tell when one of them is gone, silent or stuck.

A collective waits for a dead rank until its own timeout, which is half an hour. Here every rank holds
a connection to rank 0; the system closes the connections of a process that dies, whatever killed it,
and whoever sees that ends its own process with the rank, the host and the last stage in one line. Over
the same connections goes a heartbeat, so that a process that is stopped, a host that is cut off and a
rank that hangs are told by what is missing.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from peftune.engines.heartbeat import BEAT_S, Heartbeat, Record, main_stack
from peftune.engines.section import RanksSection

GRACE_S = 5.0
"""How long a rank may take to end by itself after another has ended with an error."""
NOTICE_S = 2.0
"""How long word of another rank's end may take."""
CONNECT_S = 20.0
UNANSWERED_S = 12
"""How long a host may leave what it was sent without an answer: then it has lost power, or the link."""
SUSPENDED_S = 10 * BEAT_S
"""A gap between two of our own heartbeats after which nobody else can be blamed for silence."""
KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 6),
    (socket.TCP_KEEPINTVL, 2),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 1000 * UNANSWERED_S),
)


class Peer:
    """The other end of one connection."""

    def __init__(self, connection: socket.socket, rank: int) -> None:
        self.connection, self.beat = connection, Heartbeat(rank, "")
        self.lines = connection.makefile("r", encoding="utf-8")
        self.lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Send a message; whoever is gone hears nothing, which its own thread notices."""
        try:
            with self.lock:
                self.connection.sendall((json.dumps(message) + "\n").encode())
        except OSError:
            return

    def hear(self, message: dict[str, Any]) -> None:
        """Take down what it says of itself."""
        beat, now = self.beat, time.monotonic()
        beat.heard, beat.moved = now, now - message.get("idle_s", 0.0)
        beat.stage, beat.stack = message.get("stage", beat.stage), message.get("stack", beat.stack)


class Lifeline:
    """This rank's connections: rank 0 has one to each other rank, and each of these one to rank 0."""

    def __init__(self, own: Heartbeat, peers: list[Peer], patience: RanksSection) -> None:
        self.own, self.peers, self.patience = own, peers, patience
        self.record: Record | None = None
        """Set on rank 0 when the run has a folder."""
        self.closed, self.lost, self.ending = threading.Event(), threading.Event(), threading.Lock()
        for peer in peers:
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def at(self, stage: str) -> None:
        """Tell rank 0 what this rank does now. It needs no answer: all ranks do the same in turn."""
        self.own.stage = stage
        self.moved()
        for peer in self.peers if self.own.rank > 0 else ():
            # Rank 0 does the same, and says so once a second.
            peer.beat.stage = stage
            peer.say(stage=stage)

    def moved(self) -> None:
        """Note that this rank gets on with its work."""
        self.own.moved = time.monotonic()

    def close(self, code: int, error: str = "") -> None:
        """Say goodbye: with 0 the others go on, with another code they end too."""
        self.closed.set()
        for peer in self.peers:
            peer.say(code=code)
        self._record_end(code, error)

    def _record_end(self, code: int, error: str) -> None:
        if self.record is not None:
            self.record.end(self.beats, code, error)

    @property
    def beats(self) -> list[Heartbeat]:
        """Of this rank, and of those it is connected to, in rank order."""
        return sorted([self.own, *(peer.beat for peer in self.peers)], key=lambda beat: beat.rank)

    def end_if_another_has(self) -> None:
        """After an error that may only follow from another rank's: end as that one does, if it does."""
        if self.peers and self.lost.wait(NOTICE_S):
            # The thread that heard of it ends this process.
            threading.Event().wait(2 * GRACE_S)

    def _live(self) -> None:
        """Say each second where the main thread is, and look whether the others still do."""
        before = time.monotonic()
        while not self.closed.wait(BEAT_S):
            now = time.monotonic()
            if now - before > SUSPENDED_S:
                for beat in self.beats:
                    beat.heard = beat.moved = now
            before = self.own.heard = now
            self.own.stack = main_stack()
            for peer in self.peers:
                peer.say(stage=self.own.stage, stack=self.own.stack, idle_s=now - self.own.moved)
            self._judge(now)
            if self.record is not None:
                self.record.write(self.beats)

    def _judge(self, now: float) -> None:
        """End where another rank is silent, or where no rank gets on with a step."""
        for peer in self.peers:
            silence_s = now - peer.beat.heard
            if silence_s > self.patience.silent_s:
                about = f"{peer.beat.name} has been silent for {silence_s:.0f} s, during"
                self._end(
                    1, f"{about} {peer.beat.stage}, last seen at {peer.beat.place}", peer.beat
                )
        idle_s = min(now - beat.moved for beat in self.beats)
        stepping = self.own.stage.startswith("step ")
        if self.own.rank == 0 and stepping and idle_s > self.patience.stalled_s:
            self._end(1, *stuck(self.beats, idle_s))

    def _listen(self, peer: Peer) -> None:
        for message in _messages(peer):
            if "code" in message:
                return self._goodbye(peer, message["code"], message.get("told", False))
            peer.hear(message)
        self._end(1, f"{peer.beat.name} is gone, during {peer.beat.stage}", peer.beat)

    def _goodbye(self, peer: Peer, code: int, told: bool) -> None:
        """An error that all ranks share is met by each of them; one of a single rank ends all."""
        if code == 0:
            # It is done and says nothing more.
            self.peers = [other for other in self.peers if other is not peer]
            return
        if told:
            os._exit(code)
        self.lost.set()
        threading.Event().wait(GRACE_S)
        self._end(code, f"{peer.beat.name} has ended, during {peer.beat.stage}", peer.beat)

    def _end(self, code: int, reason: str, culprit: Heartbeat) -> None:
        # For good: ranks that are told go at once, which other threads here would take for the reason.
        if self.closed.is_set() or not self.ending.acquire(blocking=False):
            return
        # Rank 0 speaks for all, and rank 1 where rank 0 is what they have lost.
        if self.own.rank <= 1:
            where = "".join(f"\n  {line}" for line in culprit.stack)
            seen = f"\n{culprit.name} was last seen here:{where}" if where else ""
            message = f"error: {reason}; this run ends on every rank.{seen}"
            print(message, file=sys.stderr, flush=True)
        for peer in self.peers:
            peer.say(code=code, told=True)
        self._record_end(code, reason)
        os._exit(code)


def stuck(beats: list[Heartbeat], idle_s: float) -> tuple[str, Heartbeat]:
    """Who keeps all ranks waiting: those that do not wait themselves, or nobody can tell."""
    found = [beat for beat in beats if not beat.waits]
    named = found or beats
    places = ", ".join(f"{beat.name} at {beat.place}" for beat in named[:4])
    more = f" and {len(named) - 4} more" if len(named) > 4 else ""
    who = "waited for" if found else "all wait for each other"
    return (
        f"no rank has got on for {idle_s:.0f} s, during {beats[0].stage}; {who}: {places}{more}",
        named[0],
    )


def _messages(peer: Peer) -> Any:
    """What a peer says, up to the end of the connection."""
    try:
        for line in peer.lines:
            yield json.loads(line)
    except (OSError, ValueError):
        return


def connect(
    rank: int,
    world_size: int,
    address: str,
    share: Callable[[list[Any]], list[Any]],
    patience: RanksSection,
) -> Lifeline | None:
    """Connect all ranks to rank 0, whose host is `address`. `share` gathers lists of all ranks.

    None, on every rank, where not all of them could be connected within CONNECT_S.
    """
    server = _server(address) if rank == 0 else None
    own = [(server.getsockname()[1], secrets.token_hex(16))] if server else []
    port, token = share(own)[0]
    host = socket.gethostname()
    peers = _accept(server, token, world_size - 1) if server else _dial(address, port, token, rank)
    connected = all(share([len(peers) == (world_size - 1 if server else 1)]))
    hosts = share([host])
    if server:
        server.close()
    if not connected:
        return None
    for peer in peers:
        peer.beat.host = hosts[peer.beat.rank]
    return Lifeline(Heartbeat(rank, host), peers, patience)


def _server(address: str) -> socket.socket:
    """Listens where the other ranks look for rank 0: on this machine alone if they all are here."""
    local = address in ("localhost", "127.0.0.1", "::1")
    server = socket.create_server(("127.0.0.1" if local else "", 0))
    server.settimeout(CONNECT_S)
    return server


def _accept(server: socket.socket, token: str, count: int) -> list[Peer]:
    """Rank 0's end of the connections; strangers do not know the token."""
    peers: list[Peer] = []
    try:
        while len(peers) < count:
            connection, _ = server.accept()
            # A stranger may say nothing at all.
            connection.settimeout(CONNECT_S)
            peer = Peer(connection, 0)
            hello: dict[str, Any] = next(_messages(peer), {})
            if hello.get("token") == token:
                _keep_alive(connection)
                peer.beat.rank = hello["rank"]
                peers.append(peer)
    except TimeoutError:
        pass
    return peers


def _dial(address: str, port: int, token: str, rank: int) -> list[Peer]:
    """Another rank's end of its connection."""
    try:
        connection = socket.create_connection((address, port), timeout=CONNECT_S)
    except OSError:
        return []
    _keep_alive(connection)
    peer = Peer(connection, 0)
    peer.say(token=token, rank=rank)
    return [peer]


def _keep_alive(connection: socket.socket) -> None:
    """Wait for messages as long as the host at the other end answers."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
