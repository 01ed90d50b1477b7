"""A blob server on the loopback address that serves Range requests rightly, and spoils answers in every way asked."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

PIECE: Final = 65536
ELSEWHERE: Final = "http://127.0.0.1:9/elsewhere"
OTHER_ETAG: Final = f'"{"e" * 64}"'


@dataclass(frozen=True)
class Asked:
    """One request: which blob, and from which byte on."""

    digest: str
    start: int


@dataclass
class Answer:
    """What is about to be sent; a fault changes it.

    Args:
        cut_after: so many bytes of the body are sent, then the connection ends.
        then: what happens after the bytes: "close", "reset", "stall" or "endless".
        raw: sent instead of everything.
        drip_bytes: of the body, in each half second; all at once where 0.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    cut_after: int | None = None
    then: str = "close"
    raw: bytes | None = None
    drip_bytes: int = 0
    span: tuple[int, int] = field(default=(0, 0))


Fault = Callable[[Answer, bytes], None]


class FlakyServer(ThreadingHTTPServer):
    """Serves `blobs`; use it in a `with` statement.

    `faults` are used up one by one, by requests for blobs in `spoiled` (all where it is empty); `always` follows then.
    """

    daemon_threads = True

    def __init__(self, blobs: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs = blobs
        self.spoiled: set[str] = set()
        self.faults: list[str] = []
        self.always = ""
        self.asked: list[Asked] = []
        self.sent: dict[str, int] = {}
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that go away are what this is for."""

    def fault_for(self, digest: str) -> str:
        if self.spoiled and digest not in self.spoiled:
            return ""
        return self.faults.pop(0) if self.faults else self.always


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyServer

    def do_GET(self) -> None:
        self.close_connection = True
        digest = self.path.rsplit("/", 1)[-1]
        blob = self.server.blobs.get(digest)
        if blob is None:
            self._send(digest, Answer(status=404, headers={}, body=b"{}"))
            return
        answer = self._honest(digest, blob)
        self.server.asked.append(Asked(digest, answer.span[0]))
        name, _, argument = self.server.fault_for(digest).partition(" ")
        if name:
            spoil(name, argument, answer, blob)
        with contextlib.suppress(OSError):
            self._send(digest, answer)

    def _honest(self, digest: str, blob: bytes) -> Answer:
        etag, asked = f'"{digest}"', self.headers.get("Range")
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if asked is None or self.headers.get("If-Range", etag) != etag:
            return Answer(status=200, headers=headers, body=blob, span=(0, len(blob)))
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(blob):
            headers["Content-Range"] = f"bytes */{len(blob)}"
            return Answer(status=416, headers=headers, body=b"", span=(start, start))
        headers["Content-Range"] = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
        return Answer(status=206, headers=headers, body=blob[start:], span=(start, len(blob)))

    def _send(self, digest: str, answer: Answer) -> None:
        if answer.raw is not None:
            self.wfile.write(answer.raw)
            return
        self.send_response(answer.status)
        if "Transfer-Encoding" not in answer.headers:
            answer.headers.setdefault("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            if value != "none":
                self.send_header(name, value)
        self.end_headers()
        body = answer.body if answer.cut_after is None else answer.body[: answer.cut_after]
        piece = answer.drip_bytes or PIECE
        for at in range(0, len(body), piece):
            self.wfile.write(body[at : at + piece])
            if answer.status in (200, 206):
                self.server.sent[digest] = self.server.sent.get(digest, 0) + len(body[at : at + piece])
            if answer.drip_bytes:
                self.server.over.wait(0.5)
        self.wfile.flush()
        if answer.then == "stall":
            self.server.over.wait(20)
        elif answer.then == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        while answer.then == "endless" and not self.server.over.is_set():
            self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            self.server.sent[digest] = self.server.sent.get(digest, 0) + 65536

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def spoil(name: str, argument: str, answer: Answer, blob: bytes) -> None:
    """Change an answer; `argument` is a number of bytes, a status or seconds."""
    number = int(argument) if argument.isdecimal() else 0
    match name:
        case "drop" | "reset" | "stall":  # after so many bytes of the body
            answer.cut_after = number
            answer.then = {"drop": "close"}.get(name, name)
        case "head":  # the connection ends within the answer's head
            answer.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"[:number]
        case "truncated":  # fewer bytes, and the answer says so
            answer.body = answer.body[:number]
        case "status":
            answer.status, answer.body = number, b"{}"
            answer.headers.clear()
        case "later":  # 503 with Retry-After
            answer.status, answer.body, answer.headers = 503, b"", {"Retry-After": argument}
        case "limited":  # 429 with Retry-After
            answer.status, answer.body, answer.headers = 429, b"", {"Retry-After": argument} if argument else {}
        case "redirect":
            answer.status, answer.body, answer.headers = 302, b"", {"Location": argument or ELSEWHERE}
        case "etag":
            answer.headers["ETag"] = OTHER_ETAG
        case "bare":  # no ETag: what a portal or another server sends
            del answer.headers["ETag"]
        case "whole":  # 200 to a Range request
            answer.status, answer.body = 200, blob
            answer.headers.pop("Content-Range", None)
        case "elsewhere":  # 206 with another range than asked for
            answer.status, answer.body = 206, blob[1:]
            answer.headers["Content-Range"] = f"bytes 1-{len(blob) - 1}/{len(blob)}"
        case "unsatisfiable":
            answer.status, answer.body = 416, b""
            answer.headers["Content-Range"] = f"bytes */{len(blob)}"
        case "swapped":  # the right length, one other byte
            answer.body = answer.body[:number] + bytes([answer.body[number] ^ 1]) + answer.body[number + 1 :]
        case "long":
            answer.body += b"more"
        case "endless":
            answer.headers = {"ETag": answer.headers["ETag"], "Transfer-Encoding": "chunked"}
            answer.status, answer.body, answer.then = 200, b"", "endless"
        case "packed":
            answer.headers["Content-Encoding"] = "gzip"
        case "gzipped":
            answer.headers["Content-Encoding"], answer.body = "gzip", gzip.compress(answer.body, 1)
        case "length":  # says so, whatever it sends; nothing where "none" is asked for
            answer.headers["Content-Length"] = argument
        case "range":
            answer.headers["Content-Range"] = argument
        case "drip":  # so many bytes in each half second
            answer.drip_bytes = number
        case "heads":  # an answer's head without an end
            answer.raw = b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 100_000
        case "garbage":
            answer.raw = b"SSH-2.0-OpenSSH_9.6\r\n\r\n"
        case _:
            raise ValueError(name)
