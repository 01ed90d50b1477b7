"""The bounded queue between the link, which reads the broker, and the writer, which fills the database."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wire import codec

CAPACITY: Final = 2_000
CAPACITY_BYTES: Final = 16 * 1024 * 1024
TAKEN_BYTES: Final = 8 * 1024 * 1024  # decoded, they are several times that


@dataclass(frozen=True, slots=True)
class Delivery:
    """One MQTT message as it came.

    Args:
        connection: number of the connection it came on; its MQTT acknowledgement is worth nothing on a later one.
        mid: its packet identifier on that connection; 0 where it wants no acknowledgement (QoS 0).
    """

    connection: int
    mid: int
    topic: str
    payload: bytes
    received_at: datetime


class Inbox:
    """Messages that wait for the writer.

    `put` never waits and never drops: the link looks at `full` before it reads more from its socket, so a slow
    database fills this queue, then the socket, then the broker, and in the end the devices keep their records.

    Args:
        capacity: messages.
        capacity_bytes: of all of them together, as they are when inflated: a small compressed message may be a large
            one.
    """

    def __init__(self, capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._waiting: deque[tuple[Delivery, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._capacity or self._bytes >= self._capacity_bytes

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """Add a message."""
        weight = codec.plain_bytes(delivery.payload)
        with self._changed:
            self._waiting.append((delivery, weight))
            self._bytes += weight
            self._changed.notify()

    def take(self, limit: int, window_s: float, timeout_s: float, limit_bytes: int = TAKEN_BYTES) -> list[Delivery]:
        """Return the oldest messages.

        Args:
            limit: how many at most.
            window_s: how long to wait for more once there is one.
            timeout_s: how long to wait for the first.
            limit_bytes: of all together; one message is returned whatever its size.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._waiting), timeout_s):
                return []
        deadline = time.monotonic() + window_s
        # A sleep, not a wait: being woken by each of 500 messages would cost more than the window saves.
        while len(self._waiting) < limit and self._bytes < limit_bytes and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
        taken: list[Delivery] = []
        with self._changed:
            left_bytes = limit_bytes
            while self._waiting and len(taken) < limit and (not taken or self._waiting[0][1] <= left_bytes):
                delivery, weight = self._waiting.popleft()
                taken.append(delivery)
                self._bytes -= weight
                left_bytes -= weight
        return taken
