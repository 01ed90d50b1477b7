"""One connected station side of a simulated device, with a bounded queue of what it is still to be sent."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading


class Client:
    """Sends on a thread of its own, so that a station that does not read holds up nobody but itself.

    Args:
        role: what it connected as; in the name of the thread.
        capacity: payloads that may wait.
    """

    def __init__(self, connection: socket.socket, role: str, capacity: int) -> None:
        self.connection = connection
        self.role = role
        self._outgoing: queue.Queue[bytes | None] = queue.Queue(capacity)
        self._sender = threading.Thread(target=self._send_all, name=f"line-{role}-sender", daemon=True)
        self._sender.start()

    def send(self, payload: bytes) -> bool:
        """Hand over bytes; a station that does not read loses them, as a slow camera interface would (False)."""
        try:
            self._outgoing.put_nowait(payload)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(queue.Full):
            self._outgoing.put_nowait(None)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _send_all(self) -> None:
        while (payload := self._outgoing.get()) is not None:
            try:
                self.connection.sendall(payload)
            except OSError:
                return
