"""The HTTP server behind the agent's local address: loopback, a bounded number of connections, a thread for each.

It is `http.server` of the standard library with what that one lacks: a limit on connections, on the time and size of
each request, and the guard against web pages (agent/local/guard.py).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from typing import Final

from agent.local.connection import Connection, busy_answer
from agent.local.exchange import Route, Router
from agent.local.guard import Guard
from wire.errors import LinesideError

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
_CLOSE_S: Final = 2.0
_POLL_S: Final = 0.25
_BACKLOG: Final = 64


class ConnectionServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Accepts connections; where all places are taken, the one that has been idle longest makes room."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], router: Router, guard: Guard) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.router = router
        self.guard = guard
        self.heartbeat_ns = time.monotonic_ns()
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._connections: dict[socket.socket, float | None] = {}  # since when idle; None while it is served
        super().__init__(address, Connection)

    def note_idle(self, connection: socket.socket) -> None:
        """Say that a connection waits for its next request."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = time.monotonic()

    def note_busy(self, connection: socket.socket) -> None:
        """Say that a request has begun."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = None

    def service_actions(self) -> None:
        self.heartbeat_ns = time.monotonic_ns()

    def get_request(self) -> tuple[socket.socket, object]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)  # out of descriptors, most likely: do not spin
            raise

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)  # noqa: S101  (a TCP server's requests are connections)
        if not self._take_place(request):
            with contextlib.suppress(OSError):
                request.settimeout(0.1)
                request.sendall(busy_answer())
            super().shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self.shutdown_request(request)
            log.error("No thread for a local connection.", extra={"event": "local.request_failed"})  # noqa: TRY400

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)  # noqa: S101
        super().shutdown_request(request)
        with self._empty:
            self._connections.pop(request, None)
            self._empty.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Called in the connection's thread for what no part of it expected."""
        log.exception(  # noqa: LOG004  (an exception is being handled)
            "A local connection failed.", extra={"event": "local.request_failed"}
        )

    def end_connections(self, timeout_s: float) -> bool:
        """Cut all connections and wait for their threads; True when none is left."""
        with self._empty:
            for connection in self._connections:
                _cut(connection)
            return self._empty.wait_for(lambda: not self._connections, timeout_s)

    def _take_place(self, connection: socket.socket) -> bool:
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                idle = [(since, one) for one, since in self._connections.items() if since is not None]
                if not idle:
                    return False
                oldest = min(idle, key=lambda pair: pair[0])[1]
                del self._connections[oldest]
                _cut(oldest)
            self._connections[connection] = time.monotonic()
            return True


class LocalServer:
    """Listens from construction, answers from `start`.

    A port that is taken stops no line: it is logged as an error, `trouble` says so, and a free one is listened on.

    Args:
        host: a numeric address or localhost.
        port: 0 picks a free one.
        allow_network: without it only a loopback address is accepted.

    Raises:
        LinesideError: `config.invalid_value` for an address of the network without `allow_network`;
            `network.address_unavailable` where not even a free port of the host can be had.
    """

    def __init__(self, host: str, port: int, routes: Sequence[Route], *, allow_network: bool = False) -> None:
        host = "127.0.0.1" if host == "localhost" else host
        loopback = _is_loopback(host)
        if not loopback and not allow_network:
            raise LinesideError(
                "config.invalid_value",
                f"local.host: {host} is an address of the network, and there are no passwords at the local address.",
                "Use 127.0.0.1, or set allow_network = true where the network is trusted.",
            )
        self.trouble = ""
        guard = Guard(any_address=not loopback)
        router = Router(routes)
        try:
            self._server = ConnectionServer((host, port), router, guard)
        except OSError as error:
            self.trouble = f"{host}:{port} cannot be listened on ({error.strerror})"
            try:
                self._server = ConnectionServer((host, 0), router, guard)
            except OSError as second:
                raise LinesideError(
                    "network.address_unavailable", f"{self.trouble}, nor any port of {host}.", "Correct local.host."
                ) from second
            self.trouble += f"; the local address is {self.address} instead."
            log.error("%s", self.trouble, extra={"event": "local.port_taken"})  # noqa: TRY400
        if not loopback:
            log.warning(
                "The local address %s is open to the network, without passwords.",
                self.address,
                extra={"event": "local.open_to_network"},
            )
        self._thread = threading.Thread(target=self._serve, name="local", daemon=True)

    @property
    def address(self) -> str:
        """host:port where it listens."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    @property
    def heartbeat_ns(self) -> int:
        """Monotonic clock when the accepting thread was last seen."""
        return self._server.heartbeat_ns

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering; requests on their way are cut after a moment."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_CLOSE_S)
        self._server.server_close()
        if not self._server.end_connections(_CLOSE_S):
            log.error("A local connection did not end.", extra={"event": "thread.stuck"})

    def _serve(self) -> None:
        try:
            self._server.serve_forever(_POLL_S)
        except Exception:
            log.exception("The local address is closed.", extra={"event": "local.failed"})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise LinesideError(
            "config.invalid_value", f"local.host: {host!r} is no numeric address.", "Use 127.0.0.1 or ::1."
        ) from None


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
