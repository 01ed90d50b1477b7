"""Time as a dependency: the wall clock for people, the monotonic one for durations, and a wait that can be stopped."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

# A clock before the release of this software is wrong, whatever it says.
NOT_BEFORE: Final = datetime(2026, 11, 1, tzinfo=UTC)


class Clock(Protocol):
    """What every part of the agent that needs time is given."""

    def now_utc(self) -> datetime:
        """Return the wall clock, aware, UTC."""

    def monotonic_ns(self) -> int:
        """Return a time that never jumps, shared by all processes of this device."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait; return True at once when `stop` is set, False when the time is over."""


class SystemClock:
    """The device's own clock."""

    def now_utc(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds)


class FakeClock:
    """A clock for tests: it moves only when told, and a wait moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_ns = 1_000_000_000
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Move both clocks on."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic_ns += int(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Move the wall clock only, as a wrong time server would."""
        with self._lock:
            self._now += timedelta(seconds=seconds)

    def now_utc(self) -> datetime:
        with self._lock:
            return self._now

    def monotonic_ns(self) -> int:
        with self._lock:
            return self._monotonic_ns

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        if stop.is_set():
            return True
        self.advance(seconds)
        return stop.is_set()
