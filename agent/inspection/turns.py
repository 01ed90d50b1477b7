"""Who may use a core next: all stations of the device share them, and the part that is due first goes first."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.clock import Clock


@dataclass(slots=True, order=True)
class _Waiting:
    """One look that waits; the number keeps the order among equals."""

    due_ns: int
    number: int
    granted: threading.Event = field(compare=False, default_factory=threading.Event)
    gone: bool = field(compare=False, default=False)


class Turns:
    """At most so many looks run at once, whatever the number of stations and threads: earliest deadline first.

    A deadline is a moment, so that whoever waits comes nearer to the front with time: a busy station delays the others
    and starves none. Whoever is not served by the deadline leaves without a turn, since the verdict could no longer be
    used; so neither a long queue nor a model that hangs holds anybody longer than that.

    Args:
        places: usable cores, divided by the threads one look runs on.
    """

    def __init__(self, places: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free = max(1, places)
        self._queue: list[_Waiting] = []
        self._numbers = itertools.count()
        self.refused_count = 0

    @contextlib.contextmanager
    def turn(self, due_ns: int) -> Iterator[bool]:
        """Wait for a turn; False where none came until `due_ns` (monotonic): nothing may be run then."""
        granted = self._take(due_ns)
        try:
            yield granted
        finally:
            if granted:
                self._give_back()

    def _take(self, due_ns: int) -> bool:
        if self._clock.monotonic_ns() > due_ns:
            with self._lock:
                self.refused_count += 1
            return False
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            waiting = _Waiting(due_ns, next(self._numbers))
            heapq.heappush(self._queue, waiting)
        waiting.granted.wait(max(0.0, (due_ns - self._clock.monotonic_ns()) / 1e9))
        with self._lock:
            if waiting.granted.is_set():
                return True
            waiting.gone = True
            self.refused_count += 1
            return False

    def _give_back(self) -> None:
        """Hand the place to whoever is due first; a place is free only while nobody waits."""
        with self._lock:
            while self._queue:
                first = heapq.heappop(self._queue)
                if not first.gone:
                    first.granted.set()
                    return
            self._free += 1
