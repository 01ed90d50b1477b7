"""The camera of the simulated line: raw pixels over loopback TCP, each exposed by the line's own trigger."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from typing import Final

import numpy as np

from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass

_CONNECT_TIMEOUT_S: Final = 2.0
_AWAY_PAUSE_S: Final = 0.25
_MAX_HEADER_BYTES: Final = 4096
_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_RECEIVE_BYTES: Final = 256 * 1024


class SimulatedCamera:
    """Connects again whenever the line is away; `open` succeeds with the line absent, as a live camera must.

    Args:
        name: of the view, in each frame.
        camera: which of the line's cameras; a line with one camera needs none.
    """

    def __init__(self, host: str, port: int, name: str, camera: str | None = None) -> None:
        self._address = (host, port)
        self._name = name
        self._hello = {"role": "camera"} if camera is None else {"role": "camera", "camera": camera}
        self._connection: socket.socket | None = None
        self._received = bytearray()

    def open(self) -> SourceInfo:
        """Tell what this camera is; the connection is made by the first read."""
        return SourceInfo(camera=self._name, time_class=TimeClass.HARDWARE_TRIGGERED, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        """Return the next exposure; NoFrame when the belt stands still or the line is away."""
        until = time.monotonic() + timeout_s
        try:
            connection = self._connection or self._connect()
            return self._next_frame(connection, until)
        except TimeoutError:
            return NoFrame(reason="no exposure in time", expected=True)  # a frame received in part stays in the buffer
        except (OSError, ValueError, KeyError) as error:
            self.close()
            time.sleep(min(_AWAY_PAUSE_S, timeout_s))
            return NoFrame(reason=f"camera is away: {error}")

    def close(self) -> None:
        """Hang up; the next read connects again."""
        self._received.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=_CONNECT_TIMEOUT_S)
        connection.sendall(json.dumps(self._hello).encode() + b"\n")
        self._connection = connection
        return connection

    def _next_frame(self, connection: socket.socket, until: float) -> Frame:
        while (end := self._received.find(b"\n", 0, _MAX_HEADER_BYTES)) < 0:
            if len(self._received) >= _MAX_HEADER_BYTES:
                raise ValueError("no frame header where one must stand")
            self._receive(connection, until)
        header = json.loads(self._received[:end])
        height, width = int(header["h"]), int(header["w"])
        length = height * width * 3
        if not 0 < length <= _MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {width} x {height} pixels")
        while len(self._received) < end + 1 + length:
            self._receive(connection, until)
        pixels = np.frombuffer(bytes(self._received[end + 1 : end + 1 + length]), np.uint8)
        del self._received[: end + 1 + length]
        return Frame(
            camera=self._name,
            number=int(header["number"]),
            exposed_utc=datetime.fromtimestamp(float(header["exposed_utc_s"]), UTC),
            exposed_ns=int(header["exposed_ns"]),
            image_bgr=pixels.reshape(height, width, 3),
        )

    def _receive(self, connection: socket.socket, until: float) -> None:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(_RECEIVE_BYTES)
        if not piece:
            raise ConnectionError("the line hung up")
        self._received += piece
