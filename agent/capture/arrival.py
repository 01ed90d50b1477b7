"""When a frame of a network stream would have arrived had nothing held it up.

A camera that stamps no exposures still numbers its frames in time (the stream's own clock). Held against the moment of
arrival, that clock shows which frames were late: those that a decoder or a network kept back and that came in a burst
later. Such a frame shows an older scene than its arrival says, and would be taken for the part of a later trigger.

The offset between the two clocks is the smallest one seen within the last window; windows end, because no two clocks
run alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WINDOW_NS: Final = 15_000_000_000
_JUMP_NS: Final = 10_000_000_000
_BURST_SHARE: Final = 0.5
_MOST_STALE: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One frame's arrival.

    Args:
        at_ns: monotonic; never later than the true arrival.
        stale: the frame belongs to what had gathered before the stream was opened.
    """

    at_ns: int
    stale: bool


class ArrivalClock:
    """Stamps the frames of one connection, in their order."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None
        self._draining = True
        self._stale = 0
        self._least: int | None = None
        self._least_before: int | None = None
        self._window_from = 0

    def stamp(self, arrived_ns: int, stream_ms: float) -> Arrival:
        """Return the arrival of the next frame.

        Args:
            arrived_ns: monotonic.
            stream_ms: the stream's own time of the frame; where it does not grow, arrivals are taken as they are.
        """
        stream_ns = int(stream_ms * 1e6)
        last, self._last = self._last, (arrived_ns, stream_ns)
        grew_ns = 0 if last is None else stream_ns - last[1]
        waited_ns = 0 if last is None else arrived_ns - last[0]
        if self._draining:
            # What gathered comes faster than it was exposed; the first frame may always be one of those.
            is_first = last is None
            self._draining = self._stale < _MOST_STALE and (is_first or waited_ns < grew_ns * _BURST_SHARE)
            self._stale += self._draining
            if self._draining:
                return Arrival(at_ns=arrived_ns, stale=True)
        if grew_ns <= 0 or abs(grew_ns - waited_ns) > _JUMP_NS:
            self._least = self._least_before = None
            return Arrival(at_ns=arrived_ns, stale=False)
        offset_ns = arrived_ns - stream_ns
        if self._least is None or arrived_ns - self._window_from > _WINDOW_NS:
            self._least_before, self._least, self._window_from = self._least, offset_ns, arrived_ns
        self._least = min(self._least, offset_ns)
        least = self._least if self._least_before is None else min(self._least, self._least_before)
        return Arrival(at_ns=stream_ns + least, stale=False)
