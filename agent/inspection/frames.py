"""Finds the frame that shows a trigger's part, and passes over those that show no part."""

from __future__ import annotations

from collections.abc import Mapping

from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, NoFrame, TimeClass
from agent.clock import Clock
from agent.inspection.pairing import Pairing, pair
from agent.line.trigger import Trigger
from wire.inspection import Reason


class FrameFinder:
    """Called by one thread at a time. A frame of a later part is held back until its own trigger comes."""

    def __init__(
        self, feeds: Mapping[str, Feed], time_classes: Mapping[str, TimeClass], tolerance_ms: float, clock: Clock
    ) -> None:
        self._feeds = feeds
        self._time_classes = time_classes
        self._tolerance_ms = tolerance_ms
        self._clock = clock
        self._held: dict[str, Lease] = {}

    def find(self, view: str, trigger: Trigger, until_ns: int) -> Lease | Reason | Ended:
        """Return the frame of the trigger's part; a reason where none came until `until_ns` (monotonic)."""
        timed = self._time_classes[view] is not TimeClass.RECORDED
        while True:
            left_s = (until_ns - self._clock.monotonic_ns()) / 1e9
            taken = self._held.pop(view, None) or self._feeds[view].take(max(0.0, left_s))
            if isinstance(taken, Ended):
                return taken
            if isinstance(taken, NoFrame):
                if timed and left_s > 0:
                    continue
                return Reason.NO_FRAME
            pairing = pair(trigger.at_ns, taken.frame.exposed_ns, self._tolerance_ms) if timed else Pairing.MATCH
            if pairing is Pairing.MATCH:
                return taken
            if pairing is Pairing.LATER:
                self._held[view] = taken
                return Reason.NO_FRAME
            taken.not_used()
