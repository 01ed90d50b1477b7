"""The station's side of the simulated line's controller: triggers in, verdicts out, over loopback TCP."""

from __future__ import annotations

import json
import logging
import queue
import socket
import struct
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.clock import Clock
from agent.line.trigger import Answer, LineEvent, LinePosition, RecipeRequest, StationState, Trigger

log = logging.getLogger(__name__)

_QUEUE_TRIGGERS: Final = 256
_RECONNECT_S: Final = 0.25
_ANSWER_TIMEOUT_S: Final = 1
_CONNECT_TIMEOUT_S: Final = 2.0
_MAX_LINE_BYTES: Final = 4096


class SimulatedController:
    """Connects for ever; what was missed while away shows in the next `LinePosition` or trigger sequence.

    The queue is bounded: a trigger that finds it full is left out, and its sequence gap becomes NO_VERDICT records.
    """

    def __init__(self, host: str, port: int, clock: Clock, name: str) -> None:
        self._address = (host, port)
        self._clock = clock
        self._events: queue.Queue[LineEvent] = queue.Queue(_QUEUE_TRIGGERS)
        self._stop = threading.Event()
        self._connection: socket.socket | None = None
        self._send_lock = threading.Lock()
        self._ready = False
        self._run = ""
        self._thread = threading.Thread(target=self._keep_connected, name=f"line-{name}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event of the line; None when none came in time."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def answer(self, answer: Answer) -> None:
        """Send one verdict; with the line away it is lost, and the line diverts the part by itself."""
        if answer.trigger.run == self._run:
            verdict = {"type": "verdict", "sequence": answer.trigger.sequence, "verdict": answer.verdict.value}
            self._send(verdict)

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """The simulated line never asks for a recipe."""

    def set_state(self, state: StationState) -> None:
        """Tell the line whether the station can judge parts; repeated after each reconnection."""
        if state.ready and not self._ready:
            self._send({"type": "ready"})
        self._ready = state.ready

    def close(self) -> None:
        """Leave the line; it treats every later part as unanswered."""
        self._stop.set()
        self._hang_up()
        self._thread.join(_CONNECT_TIMEOUT_S + 1.0)

    def _keep_connected(self) -> None:
        while not self._stop.is_set():
            try:
                self._attend()
            except (OSError, ValueError, KeyError) as error:
                log.info("The line is away: %s", error, extra={"event": "line.disconnected"})
            self._hang_up()
            self._clock.wait(self._stop, _RECONNECT_S)

    def _attend(self) -> None:
        connection = socket.create_connection(self._address, timeout=_CONNECT_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _ANSWER_TIMEOUT_S, 0))
        self._connection = connection
        self._send({"role": "controller"})
        if self._ready:
            self._send({"type": "ready"})
        with connection.makefile("rb") as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        sequence = int(message["sequence"])
        event: Trigger | LinePosition
        if message["type"] == "position":
            self._run = str(message["run"])
            event = LinePosition(run=self._run, sequence=sequence)
        else:
            at_ns = int(message["at_ns"])
            event = Trigger(
                id=f"{self._run}-{sequence}",
                run=self._run,
                sequence=sequence,
                at_ns=at_ns,
                at_utc=self._utc_of(at_ns),
                part_id=message.get("part_id"),
            )
        try:
            self._events.put_nowait(event)
        except queue.Full:
            log.warning("The station is %d triggers behind.", _QUEUE_TRIGGERS, extra={"event": "line.overrun"})

    def _utc_of(self, at_ns: int) -> datetime:
        age_s = (self._clock.monotonic_ns() - at_ns) / 1e9
        return self._clock.now_utc().astimezone(UTC) - timedelta(seconds=max(0.0, age_s))

    def _send(self, message: dict[str, Any]) -> None:
        with self._send_lock:
            connection = self._connection
            if connection is None:
                return
            try:
                connection.sendall(json.dumps(message).encode() + b"\n")
            except OSError as error:
                log.info("A message to the line was lost: %s", error, extra={"event": "line.disconnected"})

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            finally:
                connection.close()
