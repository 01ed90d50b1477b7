"""One connection to the local address: requests one after the other, each bounded in time and size."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

from agent.local.exchange import PROBLEM, Request, Response, problem_of
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.local.server import ConnectionServer

log = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
IDLE_S: Final = 60.0
REQUEST_S: Final = 5.0
SEND_S: Final = 5.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})


class _TooMuchError(Exception):
    """The head of a request is over its limit."""


class _BoundedReader(io.RawIOBase):
    """Reads a socket until a moment, and so many bytes: a client that sends a byte a second gains no more time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = 0.0
        self._budget = 0

    def allow(self, seconds: float, budget: int) -> None:
        """Begin anew."""
        self._until = time.monotonic() + seconds
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if self._budget <= 0:
            raise _TooMuchError
        self._connection.settimeout(left_s)
        read = self._connection.recv_into(memoryview(buffer)[: self._budget])
        self._budget -= read
        return read


class Connection(BaseHTTPRequestHandler):
    """Reads requests, asks guard and router, sends answers; keeps the connection for the next one."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ConnectionServer

    def setup(self) -> None:
        super().setup()
        threading.current_thread().name = "local-connection"
        self._reader = _BoundedReader(self.connection)
        self.rfile = self._incoming = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """Serve one request; an end of the connection, in whatever way, is no error."""
        self.close_connection = True
        try:
            self._reader.allow(IDLE_S, MAX_HEAD_BYTES)
            self.server.note_idle(self.connection)
            if not self._incoming.peek(1):
                return
            self._reader.allow(REQUEST_S, MAX_HEAD_BYTES)
            self.server.note_busy(self.connection)
            self.raw_requestline = self.rfile.readline(MAX_HEAD_BYTES)
            self.command, self.request_version = "", ""
            if self.parse_request():
                self._send(self._answer(), with_body=self.command != "HEAD")
        except _TooMuchError:
            self.close_connection = True
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except (OSError, ValueError):  # gone, too slow, or closed from our side
            self.close_connection = True

    def _answer(self) -> Response:
        try:
            self._guard()
            path, _, _ = self.path.partition("?")
            method = "GET" if self.command == "HEAD" else self.command
            found = self.server.router.find(method, path)
            if isinstance(found, Response):
                self._drop_body()
                return found
            route, names = found
            return route.answer(Request(method=method, path=path, names=names, body=self._body()))
        except LinesideError as error:
            if error.entry.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.error("%s failed: %s", self.command, error, extra={"event": "local.request_failed"})  # noqa: TRY400
            return problem_of(error)
        except Exception:
            log.exception("A local request failed.", extra={"event": "local.request_failed"})
            self.close_connection = True
            return problem_of(LinesideError("internal.unexpected", "The request failed.", "See the agent's log."))

    def _guard(self) -> None:
        headers: Message = self.headers
        if self.command not in _METHODS:
            self.close_connection = True
            raise LinesideError("request.invalid", "The local address knows GET, HEAD and POST.")
        try:
            self.server.guard.check(
                method=self.command,
                hosts=headers.get_all("Host", []),
                origins=headers.get_all("Origin", []),
                sites=headers.get_all("Sec-Fetch-Site", []),
                content_type=headers.get("Content-Type", ""),
            )
        except LinesideError:
            self.close_connection = True
            raise

    def _length(self) -> int:
        """The length of the body; only one plain number is believed, so that both sides agree where it ends."""
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") is not None or len(lengths) > 1:
            self.close_connection = True
            raise LinesideError("request.invalid", "The body needs one Content-Length and no Transfer-Encoding.")
        text = lengths[0].strip() if lengths else "0"
        if not (text.isascii() and text.isdigit()):
            self.close_connection = True
            raise LinesideError("request.invalid", "Content-Length is not a number.")
        length = int(text[:12])
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            raise LinesideError("request.too_large", f"The body may have {MAX_BODY_BYTES} bytes.")
        return length

    def _body(self) -> bytes:
        length = self._length()
        self._reader.allow(REQUEST_S, length + 1)
        try:
            body = self._incoming.read(length)
        except TimeoutError as error:
            self.close_connection = True
            raise LinesideError("request.timed_out", f"The body did not come within {REQUEST_S:g} s.") from error
        if len(body) < length:
            self.close_connection = True
            raise LinesideError("request.invalid", "The body ended before its length.")
        return body

    def _drop_body(self) -> None:
        """Nobody reads it; what is left of it must not be taken for the next request."""
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding") is not None:
            self.close_connection = True

    def _send(self, response: Response, *, with_body: bool = True) -> None:
        head = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in response.headers),
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
        ]
        self.connection.settimeout(SEND_S)
        self.connection.sendall("\r\n".join([*head, "", ""]).encode("ascii") + (response.body if with_body else b""))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer what the standard library's parser refuses, as a problem and without the caller's words."""
        self.close_connection = True
        error = LinesideError("request.invalid", "This is no request of HTTP that can be understood here.")
        try:
            self._send(problem_of(error, status=code))
        except OSError:
            log.debug("The caller of a wrong request is gone.")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are no change of state: nothing is logged."""


def busy_answer() -> bytes:
    """The answer to a connection that finds all places taken, ready to be sent."""
    response = problem_of(LinesideError("request.too_many", "All connections of the local address are in use."), 503)
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(response.body)}\r\n"
    return head.encode() + b"Retry-After: 1\r\nConnection: close\r\n\r\n" + response.body
