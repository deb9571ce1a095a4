"""The Hub's protocol as huggingface_hub speaks it, on the loopback interface, with faults on demand.

What a client sends is checked as the Hub and its storage do: tokens, sizes, digests, parents of
commits, signed addresses, and that no token goes to the storage, which is another host.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.faults import Fault, Faults
from tests.hub.messages import Answer, Request
from tests.hub.routes import route_of
from tests.hub.store import Refused, Repository, Store

HOST, STORAGE_HOST = "127.0.0.1", "localhost"


class HubServer:
    """A server that can be stopped and started again on its port, and what it has been asked."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.asked: list[tuple[str, str]] = []
        """Name of the route and path of each request, in order of arrival."""
        self.mistakes: list[BaseException | None] = []
        """Errors of the server itself."""
        self.port = 0
        self.http: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def storage(self) -> str:
        return f"http://{STORAGE_HOST}:{self.port}"

    def start(self) -> None:
        self.http = _Server((HOST, self.port), _Handler, self)
        self.port = self.http.server_address[1]
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.faults.heal()
        if self.http is not None:
            self.http.shutdown()
            self.http.server_close()
            self.http.hang_up()
            self.http = None

    def fails(self, on: str, **how: Any) -> None:
        """Plan a fault; see `Fault` for what there is."""
        self.faults.plan(Fault(on, **how))

    def heal(self) -> None:
        """No more faults; a server that is gone is back."""
        self.faults.heal()
        if self.http is None:
            self.start()

    def repository(self, repo_id: str) -> Repository:
        return self.store.repositories[repo_id]

    def count(self, name: str) -> int:
        return sum(asked == name for asked, _ in self.asked)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.mistakes == [], server.mistakes


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: Any, handler: Any, hub: HubServer) -> None:
        super().__init__(address, handler)
        self.hub = hub
        self.connections: list[socket] = []

    def get_request(self) -> tuple[socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """End the connections that clients keep for more requests."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests; whatever else happens is a mistake here."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.hub.mistakes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *of: Any) -> None:
        """The test's output is the client's alone."""

    def _answer(self) -> None:
        hub = self.server.hub
        parts = urlsplit(self.path)
        name, function, variable = route_of(self.command, parts.path)
        hub.asked.append((name, unquote(parts.path)))
        fault = hub.faults.take(name, unquote(self.path))
        if fault is not None and fault.silent:
            hub.faults.healed.wait()
            return self._hang_up()
        body = self._body(fault)
        if body is None:
            return self._hang_up()
        if fault is not None and fault.status is not None and not fault.applied:
            return self._send(_planned(fault), None)
        answer = self._answered(function, variable, body)
        if fault is not None and fault.applied:
            return self._send(_planned(fault), None) if fault.status else self._hang_up()
        return self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _body(self, fault: Fault | None) -> bytes | None:
        """What the request holds; None where the connection is to end while it is read."""
        length = int(self.headers.get("Content-Length", 0))
        if fault is None or fault.cut is None or fault.applied or self.command in ("GET", "HEAD"):
            return self.rfile.read(length)
        self.rfile.read(min(fault.cut, length))
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(SHUT_RDWR)

    def _answered(
        self, function: Callable[[Request], Answer], variable: list[str], body: bytes
    ) -> Answer:
        parts, hub = urlsplit(self.path), self.server.hub
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        request = Request(
            hub.store,
            hub.endpoint,
            hub.storage,
            parts.path,
            variable,
            query,
            {key.lower(): value for key, value in self.headers.items()},
            token,
            body,
        )
        try:
            return function(request)
        except Refused as refused:
            return _refusal(refused)

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body
        if fault is not None and fault.change is not None:
            body = fault.change(body)
        self.send_response(answer.status)
        for key, value in ({"Content-Length": str(len(body))} | answer.headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.cut is not None:
            self.wfile.write(body[: fault.cut])
            return self._hang_up()
        self.wfile.write(body)


def _refusal(refused: Refused) -> Answer:
    headers = {"X-Error-Code": refused.code} if refused.code else {}
    return Answer.of({"error": refused.message}, refused.status, headers)


def _planned(fault: Fault) -> Answer:
    assert fault.status is not None
    if fault.text.startswith("<"):
        headers = {"Content-Type": "application/xml"} | fault.headers
        return Answer(fault.text.encode(), fault.status, headers)
    words = {"error": fault.text} if fault.text else {}
    return Answer.of(words, fault.status, fault.headers)
