"""A network between two processes that a test can cut: one TCP relay on the loopback address, no root needed."""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Self

_PIECE_BYTES: Final = 65536
_WAITING_BYTES: Final = 1024 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST, as a router that knows nothing does


class Way(enum.StrEnum):
    """A direction, seen from who connected."""

    UP = "up"
    DOWN = "down"

    @property
    def back(self) -> Way:
        """The other one."""
        return Way.DOWN if self is Way.UP else Way.UP


# What becomes of the bytes of one direction: bytes to send, and where to.
Filter = Callable[[Way, bytes], Iterable[tuple[Way, bytes]]]


@dataclass
class _Pair:
    """One connection: the end that leads up (to the server) and the one that leads down."""

    ends: dict[Way, socket.socket]
    filter: Filter
    waiting: dict[Way, bytearray] = field(default_factory=lambda: {way: bytearray() for way in Way})


class Proxy:
    """Relays to `port` from a port of its own; use it in a `with` statement.

    A held direction swallows nothing, as a cut cable does not either: what TCP has taken arrives when it is whole
    again, or never where the connection is reset meanwhile. Nobody is told of it.

    Args:
        port: of the server, on 127.0.0.1.
        filter_of: makes what the bytes of one connection go through; by default they pass as they are.
    """

    def __init__(self, port: int, filter_of: Callable[[], Filter] = lambda: lambda way, data: ((way, data),)) -> None:
        self._target = port
        self._filter_of = filter_of
        self._held: set[Way] = set()
        self._reset_wanted = False
        self._stop = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.port: int = self._server.getsockname()[1]
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._pairs: list[_Pair] = []
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._wake()
        self._thread.join(5)

    def hold(self, *ways: Way) -> None:
        """Let nothing through in these directions; new connections are taken and hear nothing."""
        self._held |= set(ways or Way)
        self._wake()

    def release(self) -> None:
        """Let everything through again."""
        self._held = set()
        self._wake()

    def reset(self) -> None:
        """Break all connections; bytes that were held are gone."""
        self._reset_wanted = True
        self._wake()

    def _wake(self) -> None:
        self._wake_out.send(b"\0")

    def _run(self) -> None:
        while not self._stop:
            self._serve(*self._ready())
        for pair in list(self._pairs):
            self._end(pair)
        self._server.close()

    def _ready(self) -> tuple[set[int], set[int]]:
        """Wait; return the descriptors that can be read and those that can be written."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            for pair in self._pairs:
                for way, end in pair.ends.items():
                    # What goes up is read from the end that leads down, and waits for the end that leads up.
                    reads = way.back not in self._held and len(pair.waiting[way.back]) < _WAITING_BYTES
                    writes = way not in self._held and pair.waiting[way]
                    if events := (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0):
                        selector.register(end, events)
            found = selector.select(1.0)
        readable = {key.fd for key, events in found if events & selectors.EVENT_READ}
        return readable, {key.fd for key, events in found if events & selectors.EVENT_WRITE}

    def _serve(self, readable: set[int], writable: set[int]) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        if self._reset_wanted:
            self._reset_wanted = False
            for pair in list(self._pairs):
                self._end(pair)
        if self._server.fileno() in readable:
            self._accept()
        for pair in list(self._pairs):
            try:
                for way, end in pair.ends.items():
                    if end.fileno() in readable:
                        self._take(pair, way.back, end)
                    if end.fileno() in writable:
                        del pair.waiting[way][: end.send(pair.waiting[way])]
            except BlockingIOError:
                continue
            except OSError:
                self._end(pair)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            down, _ = self._server.accept()
            try:
                up = socket.create_connection(("127.0.0.1", self._target), timeout=2)
            except OSError:
                down.close()
                return
            for end in (up, down):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append(_Pair(ends={Way.UP: up, Way.DOWN: down}, filter=self._filter_of()))

    def _take(self, pair: _Pair, way: Way, end: socket.socket) -> None:
        data = end.recv(_PIECE_BYTES)
        if not data:
            raise OSError("the end of the connection")
        for where, passed in pair.filter(way, data):
            pair.waiting[where] += passed

    def _end(self, pair: _Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        for end in pair.ends.values():
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
