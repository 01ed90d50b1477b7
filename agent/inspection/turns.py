"""Who may use a core next: all stations of the device share them, and the part that is due first goes first."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.clock import Clock

# A place that was wanted so lately may be wanted again at once.
IDLE_NS: Final = 5_000_000
# A thread that carries one part after the other leaves its place for less than this between two looks: for the next
# frame's decoder, for its record.
PAUSE_NS: Final = 10_000_000
# One that left it for no longer in all this time is at its limit: whatever ran beside it would take from its pace.
PAUSE_WITHIN_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Pace:
    """When a thread left its place, None while it has or awaits one, and when its last pause was over (monotonic)."""

    left_ns: int | None
    paused_ns: int


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

    A place that nobody wants may be borrowed, unless a thread is at its limit or works at full speed. It stays free for
    all looks: whoever takes the last free one takes it from the borrower, and does not wait for it.

    Args:
        places: usable cores, divided by the threads one look runs on.
    """

    def __init__(self, places: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free = max(1, places)
        self._queue: list[_Waiting] = []
        self._numbers = itertools.count()
        self._busy_until_ns = 0
        self._paces: dict[int, _Pace] = {}
        self._revoke: Callable[[], None] | None = None
        self._at_full_speed = 0
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

    @contextlib.contextmanager
    def at_full_speed(self) -> Iterator[None]:
        """Lend no place while this lasts: the calling thread carries parts as fast as they can be read.

        It pauses for its decoder only, and that needs the core that looks idle.
        """
        with self._lock:
            self._at_full_speed += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_full_speed -= 1

    def borrow(self, revoke: Callable[[], None]) -> bool:
        """Borrow a place, one at a time, if one has been free for long enough to be idle; `end_borrowing` returns it.

        Args:
            revoke: called once, at any moment, by a thread that needs its time: the place is no longer the borrower's.
        """
        with self._lock:
            if self._revoke is not None or not self._free or self._at_full_speed:
                return False
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._busy_until_ns + IDLE_NS or self._is_anyone_at_the_limit(now_ns):
                return False
            self._revoke = revoke
            return True

    def end_borrowing(self) -> None:
        """Return what was borrowed, revoked or not."""
        with self._lock:
            self._revoke = None

    def _is_anyone_at_the_limit(self, now_ns: int) -> bool:
        self._paces = {
            thread: pace
            for thread, pace in self._paces.items()
            if pace.left_ns is None or now_ns - pace.left_ns < PAUSE_NS
        }  # what is left out has paused
        return any(now_ns - pace.paused_ns > PAUSE_WITHIN_NS for pace in self._paces.values())

    def _note_begin(self, now_ns: int) -> None:
        pace = self._paces.setdefault(threading.get_ident(), _Pace(left_ns=now_ns, paused_ns=now_ns))
        if pace.left_ns is not None and now_ns - pace.left_ns >= PAUSE_NS:
            pace.paused_ns = now_ns
        pace.left_ns = None

    def _note_end(self, now_ns: int) -> None:
        pace = self._paces.get(threading.get_ident())
        if pace is not None:
            pace.left_ns = now_ns

    def _take(self, due_ns: int) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns > due_ns:
            with self._lock:
                self.refused_count += 1
            return False
        with self._lock:
            self._note_begin(now_ns)
            if self._free:
                self._free -= 1
                if not self._free and self._revoke is not None:
                    revoke, self._revoke = self._revoke, None
                    revoke()
                return True
            waiting = _Waiting(due_ns, next(self._numbers))
            heapq.heappush(self._queue, waiting)
        waiting.granted.wait(max(0.0, (due_ns - self._clock.monotonic_ns()) / 1e9))
        with self._lock:
            if waiting.granted.is_set():
                return True
            waiting.gone = True
            self.refused_count += 1
            self._note_end(self._clock.monotonic_ns())
            return False

    def _give_back(self) -> None:
        """Hand the place to whoever is due first; a place is free only while nobody waits."""
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            self._note_end(now_ns)
            while self._queue:
                first = heapq.heappop(self._queue)
                if not first.gone:
                    first.granted.set()
                    return
            if not self._free:
                self._busy_until_ns = now_ns
            self._free += 1
