"""The cameras over a simulated belt: each part's picture to whoever is connected as that camera, over loopback TCP.

The protocol is that of the simulated line's camera (agent/capture/simulated.py): a client says which camera it wants,
and then gets a JSON header and raw pixels for each exposure. A camera that is lost hangs up and takes no new client.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.simulator.client import Client
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_HELLO_TIMEOUT_S: Final = 5.0
_CAPACITY_FRAMES: Final = 8
_MAX_LINE_BYTES: Final = 4096
_END_TIMEOUT_S: Final = 2.0


class BeltCameras:
    """Serves any number of cameras on one port.

    Args:
        host: a loopback address.
        port: 0 picks a free one.
        names: of the cameras.
    """

    def __init__(self, host: str, port: int, names: Collection[str]) -> None:
        if not host.startswith("127."):
            raise LinesideError(
                "config.invalid_value",
                f"Simulated cameras serve this machine only, not {host}.",
                "Use an address of 127.0.0.0/8.",
            )
        self._lock = threading.Lock()
        self._clients: dict[str, list[Client]] = {name: [] for name in names}
        self._exposures = dict.fromkeys(names, 0)
        self._lost: set[str] = set()
        self._closed = False
        self._server = socket.create_server((host, port))
        self.port: int = self._server.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="belt-cameras", daemon=True)
        self._acceptor.start()

    def expose(self, at_ns: int, at_utc_s: float, pictures: Mapping[str, NDArray[np.uint8]]) -> frozenset[str]:
        """Give each named camera's picture to its clients.

        Args:
            at_ns: monotonic clock of the exposure.
            pictures: (H, W, 3) uint8, BGR, by camera.

        Returns:
            The cameras whose picture was handed to every client they have, and that have one.
        """
        seen: set[str] = set()
        with self._lock:
            for name, picture in pictures.items():
                self._exposures[name] += 1
                clients = self._clients[name]
                if not clients:
                    continue
                height, width = picture.shape[:2]
                header = {
                    "number": self._exposures[name],
                    "exposed_ns": at_ns,
                    "exposed_utc_s": at_utc_s,
                    "w": width,
                    "h": height,
                }
                payload = json.dumps(header).encode() + b"\n" + picture.tobytes()
                too_slow = [client for client in clients if not client.send(payload)]
                if not too_slow:
                    seen.add(name)
        return frozenset(seen)

    def lose(self, name: str) -> None:
        """Cut a camera off; what it exposes from now on nobody sees."""
        with self._lock:
            self._lost.add(name)
            clients, self._clients[name] = self._clients[name], []
        for client in clients:
            client.close()

    def restore(self, name: str) -> None:
        """Let a lost camera take clients again."""
        with self._lock:
            self._lost.discard(name)

    def close(self) -> None:
        """Hang up on everybody; closing twice is harmless."""
        with self._lock:
            self._closed = True
            clients = [client for each in self._clients.values() for client in each]
            for each in self._clients.values():
                each.clear()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the acceptor, which close alone would not
        self._server.close()
        for client in clients:
            client.close()
        self._acceptor.join(_END_TIMEOUT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._attend, args=(connection,), name="belt-camera", daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        """Greet one client, and notice when it leaves."""
        connection.settimeout(_HELLO_TIMEOUT_S)
        try:
            stream = connection.makefile("rb")
            name = json.loads(stream.readline(_MAX_LINE_BYTES)).get("camera") or next(iter(self._clients))
            connection.settimeout(None)
            client = self._admit(name, connection)
        except (OSError, ValueError, AttributeError) as error:
            log.info("A camera's client was turned away: %s", error, extra={"event": "line.disconnected"})
            connection.close()
            return
        with contextlib.suppress(OSError):
            while stream.readline(_MAX_LINE_BYTES):
                pass
        with self._lock:
            if client in self._clients[name]:
                self._clients[name].remove(client)
        client.close()

    def _admit(self, name: str, connection: socket.socket) -> Client:
        with self._lock:
            if name not in self._clients:
                raise ValueError(f"there is no camera {name!r}")
            if self._closed or name in self._lost:
                raise ConnectionError(f"the camera {name} is away")
            client = Client(connection, name, _CAPACITY_FRAMES)
            self._clients[name].append(client)
        log.info("A station connected to the camera %s.", name, extra={"event": "line.connected"})
        return client
