"""The bounded queue between the link, which reads the broker, and the writer, which fills the database."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

CAPACITY: Final = 2_000


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
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._waiting: deque[Delivery] = deque()
        self._changed = threading.Condition()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._capacity

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        """Add a message."""
        with self._changed:
            self._waiting.append(delivery)
            self._changed.notify()

    def take(self, limit: int, window_s: float, timeout_s: float) -> list[Delivery]:
        """Return the oldest messages.

        Args:
            limit: how many at most.
            window_s: how long to wait for more once there is one.
            timeout_s: how long to wait for the first.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._waiting), timeout_s):
                return []
        deadline = time.monotonic() + window_s
        # A sleep, not a wait: being woken by each of 500 messages would cost more than the window saves.
        while len(self._waiting) < limit and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.005))
        with self._changed:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
