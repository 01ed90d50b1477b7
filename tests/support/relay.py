"""A TCP relay that can lose connections, swallow what is said, and refuse new connections."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Stands between a client and `target`; `port` is its own."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.swallows = threading.Event()
        self.refuses = threading.Event()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                if self.refuses.is_set():
                    raise ConnectionRefusedError
                target = socket.create_connection(self._target, timeout=2)
            except OSError:
                client.close()
                continue
            for one in (client, target):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                is_refused = self.refuses.is_set()  # since it was asked above: a `cut` would not know of this one
                if not is_refused:
                    self._pairs.append((client, target))
            if is_refused:
                client.close()
                target.close()
                continue
            for source, sink in ((client, target), (target, client)):
                threading.Thread(target=self._carry, args=(source, sink), name="relay-way", daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := source.recv(65536):
                if not self.swallows.is_set():
                    sink.sendall(said)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
