"""A socket that reads and writes in large pieces, for an MQTT client that asks for single bytes.

paho reads a packet's head byte by byte and writes each packet by itself: four system calls for a message, each of which
also gives the interpreter away to the other thread. Here, one call brings what the kernel holds, and the
acknowledgements of a whole commit leave together.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import paho.mqtt.client as mqtt

PIECE_BYTES: Final = 128 * 1024
MAX_WAITING_BYTES: Final = 1024 * 1024


class BufferedSocket:
    """Stands in for a connected, non-blocking socket; the owner calls `flush`, and asks `buffered` before it waits.

    Args:
        inner: a plain socket, or one wrapped for TLS.
    """

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._piece = b""
        self._at = 0
        self._waiting = bytearray()

    @property
    def buffered(self) -> bool:
        """Whether bytes are here that no poll of the descriptor tells of."""
        return self._at < len(self._piece)

    @property
    def unsent(self) -> bool:
        """Whether bytes wait for the kernel to take them."""
        return bool(self._waiting)

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes; empty at the end of the connection.

        Raises:
            BlockingIOError: nothing is here (or what a TLS socket raises for it).
        """
        if self._at >= len(self._piece):
            self._piece, self._at = self._inner.recv(PIECE_BYTES), 0
        start = self._at
        self._at = min(start + size, len(self._piece))
        return self._piece[start : self._at]

    def send(self, data: bytes | bytearray) -> int:
        """Keep bytes until `flush`.

        Raises:
            BlockingIOError: too many wait already; they were offered to the kernel once more.
        """
        if len(self._waiting) >= MAX_WAITING_BYTES:
            self.flush()
            if len(self._waiting) >= MAX_WAITING_BYTES:
                raise BlockingIOError
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """Give the kernel what it takes now.

        Raises:
            OSError: the connection is gone.
        """
        try:
            while self._waiting:
                del self._waiting[: self._inner.send(self._waiting)]
        except (BlockingIOError, InterruptedError):
            return

    def close(self) -> None:
        """Close the connection; what waits is lost."""
        self._waiting.clear()
        self._inner.close()

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._inner.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BufferedClient(mqtt.Client):
    """paho's client over a `BufferedSocket`.

    The hook is paho's own and not public. A version that no longer calls it leaves a client over its plain socket,
    which works as before, only slower.
    """

    def _create_socket(self) -> Any:
        made = super()._create_socket()  # type: ignore[no-untyped-call,unused-ignore]
        return BufferedSocket(made) if isinstance(made, socket.socket) else made

    def buffered_socket(self) -> BufferedSocket | None:
        """Return the buffered socket of the connection, None where there is none."""
        found: Any = self.socket()
        return found if isinstance(found, BufferedSocket) else None
