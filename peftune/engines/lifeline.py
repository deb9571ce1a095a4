"""Lines between the ranks that tell when one of them is gone.

A collective waits for a dead rank until its own timeout, which is half an hour. Here every rank holds
a connection to rank 0; the system closes the connections of a process that dies, whatever killed it,
and whoever sees that ends its own process with the rank, the host and the last stage in one line.
"""

import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

GRACE_S = 5.0
"""How long a rank may take to end by itself after another has ended with an error."""
NOTICE_S = 2.0
"""How long word of another rank's end may take."""
CONNECT_S = 20.0
# A host that loses power closes nothing: about twelve seconds without an answer count as the end.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 6), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))


class Peer:
    """The other end of one connection."""

    def __init__(self, connection: socket.socket, rank: int, host: str, stage: str) -> None:
        self.connection, self.rank, self.host, self.stage = connection, rank, host, stage
        self.lines = connection.makefile("r", encoding="utf-8")

    def say(self, **message: Any) -> None:
        """Send a message; whoever is gone hears nothing, which its own thread notices."""
        try:
            self.connection.sendall((json.dumps(message) + "\n").encode())
        except OSError:
            return


class Lifeline:
    """This rank's connections: rank 0 has one to each other rank, and each of these one to rank 0."""

    def __init__(self, rank: int, peers: list[Peer]) -> None:
        self.rank, self.peers, self.closed = rank, peers, False
        self.lost = threading.Event()
        for peer in peers:
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def at(self, stage: str) -> None:
        """Tell rank 0 what this rank does now. It needs no answer: all ranks do the same in turn."""
        for peer in self.peers if self.rank > 0 else ():
            peer.stage = stage
            peer.say(stage=stage)

    def close(self, code: int) -> None:
        """Say goodbye: with 0 the others go on, with another code they end too."""
        self.closed = True
        for peer in self.peers:
            peer.say(code=code)

    def end_if_another_has(self) -> None:
        """After an error that may only follow from another rank's: end as that one does, if it does."""
        if self.lost.wait(NOTICE_S):
            # The thread that heard of it ends this process.
            threading.Event().wait(2 * GRACE_S)

    def _listen(self, peer: Peer) -> None:
        for message in _messages(peer):
            peer.stage = message.get("stage", peer.stage)
            if "code" in message:
                return self._goodbye(peer, message["code"], message.get("told", False))
        self._end(1, f"rank {peer.rank} on {peer.host} is gone, during {peer.stage}")

    def _goodbye(self, peer: Peer, code: int, told: bool) -> None:
        """An error that all ranks share is met by each of them; one of a single rank ends all."""
        if code == 0:
            return
        if told:
            os._exit(code)
        self.lost.set()
        threading.Event().wait(GRACE_S)
        self._end(code, f"rank {peer.rank} on {peer.host} has ended, during {peer.stage}")

    def _end(self, code: int, reason: str) -> None:
        if self.closed:
            return
        # Rank 0 speaks for all, and rank 1 where rank 0 is what they have lost.
        if self.rank <= 1:
            print(f"error: {reason}; this run ends on every rank.", file=sys.stderr, flush=True)
        for peer in self.peers:
            peer.say(code=code, told=True)
        os._exit(code)


def _messages(peer: Peer) -> Any:
    """What a peer says, up to the end of the connection."""
    try:
        for line in peer.lines:
            yield json.loads(line)
    except (OSError, ValueError):
        return


def connect(
    rank: int, world_size: int, address: str, share: Callable[[list[Any]], list[Any]]
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
        peer.host = hosts[peer.rank]
    return Lifeline(rank, peers)


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
            peer = Peer(connection, 0, "", "starting")
            hello: dict[str, Any] = next(_messages(peer), {})
            if hello.get("token") == token:
                _keep_alive(connection)
                peer.rank = hello["rank"]
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
    peer = Peer(connection, 0, "", "starting")
    peer.say(token=token, rank=rank)
    return [peer]


def _keep_alive(connection: socket.socket) -> None:
    """Wait for messages as long as the host at the other end answers."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
