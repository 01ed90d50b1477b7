"""The simulated line: one process that is belt, photo-eye, controller and camera, and counts its parts in a file.

It stands for what Lineside does not own: it knows the truth of each part and tells nobody but its own count file. A
station connects twice over loopback TCP: as `controller` (JSON lines: position, triggers down; ready, verdicts up) and
as `camera` (a JSON line, then raw pixels, for each exposure). The belt never waits for an answer: a part without a
verdict when its deadline is over is diverted and counted as `no_answer`.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.simulator import parts, parts_plan
from agent.simulator.client import Client
from wire import mint
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_HELLO_TIMEOUT_S: Final = 5.0
_CAMERA_QUEUE_FRAMES: Final = 8
_CONTROLLER_QUEUE_LINES: Final = 256
_MAX_LINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSettings:
    """What one simulated line does.

    Args:
        host: a loopback address; port 0 picks a free one.
        part_count: 0 runs until it is stopped.
        parts_per_s: pace of the belt.
        deadline_ms: a verdict later than this after the trigger is no use to the line.
        wait_for_ready: the belt starts when a station first says it is ready, and never stops for it again.
    """

    host: str = "127.0.0.1"
    port: int = 0
    count_file: Path
    seed: int = 1
    part_count: int = 0
    parts_per_s: float = 3.0
    defect_rate: float = 0.2
    deadline_ms: float = 500.0
    wait_for_ready: bool = True


class CountFile:
    """The line's own account: one JSON line for each trigger, verdict and missing answer, flushed at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **fields: object) -> None:
        with self._lock:
            self._stream.write(json.dumps(fields, separators=(",", ":")) + "\n")
            self._stream.flush()

    def close(self) -> None:
        with self._lock:
            self._stream.close()


class SimulatedLine:
    """Runs the belt on the calling thread, and one thread for each connection."""

    def __init__(self, settings: LineSettings) -> None:
        if not settings.host.startswith("127."):
            raise LinesideError(
                "config.invalid_value",
                f"A simulated line serves this machine only, not {settings.host}.",
                "Use an address of 127.0.0.0/8.",
            )
        self._settings = settings
        self.run_id = mint.epoch_id()
        self._sequence = 0
        self._waiting: dict[int, int] = {}
        self._clients: list[Client] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._count_file = CountFile(settings.count_file)
        self._server = socket.create_server((settings.host, settings.port))
        self.port: int = self._server.getsockname()[1]

    def serve(self, stop: threading.Event) -> None:
        """Accept stations and move the belt until `stop` is set or all parts have passed."""
        acceptor = threading.Thread(target=self._accept, name="line-acceptor", daemon=True)
        acceptor.start()
        try:
            self._wait_for_station(stop)
            self._move_belt(stop)
            self._settle_open_parts()
        finally:
            self._server.close()
            with self._lock:
                clients = list(self._clients)
            for client in clients:
                client.close()
            self._count_file.close()

    def _wait_for_station(self, stop: threading.Event) -> None:
        while self._settings.wait_for_ready and not stop.is_set() and not self._ready.wait(0.1):
            pass

    def _move_belt(self, stop: threading.Event) -> None:
        pitch_s = 1.0 / self._settings.parts_per_s
        next_at = time.monotonic() + pitch_s
        number = 0
        while not stop.is_set() and (self._settings.part_count == 0 or number < self._settings.part_count):
            number += 1
            part = parts_plan.plan_part(self._settings.seed, number, self._settings.defect_rate)
            image_bgr = parts.render(part)
            if stop.wait(max(0.0, next_at - time.monotonic())):
                break
            next_at = max(next_at + pitch_s, time.monotonic() - pitch_s)
            self._trigger("NG" if part.truth.defects else "OK", image_bgr)
            self._divert_unanswered()

    def _trigger(self, truth: str, image_bgr: NDArray[np.uint8]) -> None:
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            at_ns = time.monotonic_ns()
            self._waiting[sequence] = at_ns
            self._count_file.write(event="trigger", run=self.run_id, sequence=sequence, truth=truth, at=time.time())
            height, width = image_bgr.shape[:2]
            header = {"number": sequence, "exposed_ns": at_ns, "exposed_utc_s": time.time(), "w": width, "h": height}
            frame = json.dumps(header).encode() + b"\n" + image_bgr.tobytes()
            trigger = {"type": "trigger", "sequence": sequence, "at_ns": at_ns, "part_id": f"p{sequence:07d}"}
            for client in self._clients:
                client.send(frame if client.role == "camera" else json.dumps(trigger).encode() + b"\n")

    def _divert_unanswered(self) -> None:
        oldest_ns = time.monotonic_ns() - int(self._settings.deadline_ms * 1e6)
        with self._lock:
            overdue = [sequence for sequence, at_ns in self._waiting.items() if at_ns < oldest_ns]
            for sequence in overdue:
                del self._waiting[sequence]
        for sequence in overdue:
            self._count_file.write(event="no_answer", run=self.run_id, sequence=sequence)

    def _settle_open_parts(self) -> None:
        until = time.monotonic() + self._settings.deadline_ms / 1e3
        while self._waiting and time.monotonic() < until + 0.05:
            time.sleep(0.01)
            self._divert_unanswered()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._attend, args=(connection,), name="line-client", daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        """Greet one client and read what it says until it leaves."""
        connection.settimeout(_HELLO_TIMEOUT_S)
        try:
            stream = connection.makefile("rb")
            role = json.loads(stream.readline(_MAX_LINE_BYTES)).get("role")
            connection.settimeout(None)
        except (OSError, ValueError, AttributeError):
            connection.close()
            return
        client = Client(connection, role, _CAMERA_QUEUE_FRAMES if role == "camera" else _CONTROLLER_QUEUE_LINES)
        with self._lock:
            if role != "camera":
                position = {"type": "position", "run": self.run_id, "sequence": self._sequence}
                client.send(json.dumps(position).encode() + b"\n")
            self._clients.append(client)
        log.info("A station connected as %s.", role, extra={"event": "line.connected"})
        try:
            while line := stream.readline(_MAX_LINE_BYTES):
                self._hear(json.loads(line))
        except (OSError, ValueError, KeyError) as error:
            log.info("A %s left: %s", role, error, extra={"event": "line.disconnected"})
        finally:
            with self._lock:
                self._clients.remove(client)
            client.close()

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("type") == "ready":
            self._ready.set()
            return
        sequence = int(message["sequence"])
        now_ns = time.monotonic_ns()
        with self._lock:
            at_ns = self._waiting.pop(sequence, None)
        if at_ns is None:
            self._count_file.write(event="late_verdict", run=self.run_id, sequence=sequence, verdict=message["verdict"])
            return
        self._count_file.write(
            event="verdict",
            run=self.run_id,
            sequence=sequence,
            verdict=message["verdict"],
            after_ms=round((now_ns - at_ns) / 1e6, 2),
        )
