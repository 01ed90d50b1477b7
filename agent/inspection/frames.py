"""Finds the frames that show a trigger's part, and passes over those that show no part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, NoFrame, TimeClass, Vital
from agent.clock import Clock
from agent.inspection import pairing
from agent.inspection.pairing import Pairing, Window
from agent.line.trigger import Trigger
from wire.inspection import Reason

# While several views are waited for, each is looked at so often.
_SLICE_S: Final = 0.002
LATENCY_DEFAULT_MS: Final = 500.0

# What is wrong with a picture, the cause that explains the others first.
REASON_OF: Final[dict[Vital, Reason]] = {
    Vital.CORRUPT: Reason.FRAME_CORRUPT,
    Vital.SETTINGS: Reason.CAMERA_SETTINGS,
    Vital.WRONG_SIZE: Reason.FRAME_WRONG_SIZE,
    Vital.BLACK: Reason.FRAME_BLACK,
    Vital.SATURATED: Reason.FRAME_SATURATED,
    Vital.FROZEN: Reason.FRAME_FROZEN,
    Vital.MOVED: Reason.CAMERA_MOVED,
    Vital.BLURRED: Reason.FRAME_BLURRED,
}


def reason_of(vitals: tuple[Vital, ...]) -> Reason:
    """Return why a picture is not judged; NONE where nothing is wrong with it."""
    return next((reason for vital, reason in REASON_OF.items() if vital in vitals), Reason.NONE)


class FrameFinder:
    """Called by one thread at a time. A frame of a later part is held back until its own trigger comes.

    All views of a part are waited for together, up to the same instant, so that a slow or lost camera costs its own
    view only: a frame of another view is taken while it is there, not after the slow one has been given up.

    Args:
        latencies_ms: of the views that know arrivals only.
    """

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        time_classes: Mapping[str, TimeClass],
        tolerance_ms: float,
        clock: Clock,
        latencies_ms: Mapping[str, float] | None = None,
    ) -> None:
        self._feeds = feeds
        self._time_classes = time_classes
        self._tolerance_ms = tolerance_ms
        self._clock = clock
        self._latencies_ms = latencies_ms or {}
        self._held: dict[str, Lease] = {}
        self._sizes_px: dict[str, tuple[int, int]] = {}

    def size_px(self, view: str) -> tuple[int, int] | None:
        """Return width and height of a view's newest frame; None before the first. Any thread may ask."""
        return self._sizes_px.get(view)

    def window_of(self, view: str, trigger: Trigger, *, standstill: bool) -> Window | Reason:
        """Return when a view's frame of the trigger's part was exposed, or why nobody can tell."""
        return pairing.window_of(
            trigger,
            view,
            self._time_classes[view],
            tolerance_ms=self._tolerance_ms,
            latency_ms=self.latency_ms(view),
            standstill=standstill,
        )

    def latency_ms(self, view: str) -> float:
        """Return after which time a frame of a view that knows arrivals only was surely exposed after the trigger."""
        return self._latencies_ms.get(view, LATENCY_DEFAULT_MS)

    def find(
        self, views: Sequence[str], trigger: Trigger, until_ns: int, *, standstill: bool = False
    ) -> dict[str, Lease | Reason] | Ended:
        """Return each view's frame of the trigger's part; a reason where none came until `until_ns` (monotonic)."""
        found: dict[str, Lease | Reason] = {}
        waiting: dict[str, Window] = {}
        for view in views:
            window = self.window_of(view, trigger, standstill=standstill)
            if isinstance(window, Reason):
                found[view] = window
            elif self._time_classes[view] is TimeClass.RECORDED:
                answer = self._recorded(view, until_ns)
                if isinstance(answer, Ended):
                    return _let_go(found)
                found[view] = answer
            else:
                waiting[view] = window
        while waiting:
            left_s = self._left_s(until_ns)
            for view, window in tuple(waiting.items()):
                answer_or_none = self._look(view, window, left_s if len(waiting) == 1 else min(left_s, _SLICE_S))
                if isinstance(answer_or_none, Ended):
                    return _let_go(found)
                if answer_or_none is None and left_s <= 0:
                    answer_or_none = Reason.NO_FRAME
                if answer_or_none is not None:
                    found[view] = answer_or_none
                    del waiting[view]
        for view, lease in found.items():
            if isinstance(lease, Lease):
                height_px, width_px = lease.frame.image_bgr.shape[:2]
                self._sizes_px[view] = (width_px, height_px)
        return found

    def _recorded(self, view: str, until_ns: int) -> Lease | Reason | Ended:
        """Files keep their order and wait for us: their next frame is the part's."""
        held = self._held.pop(view, None)
        taken = held if held is not None else self._feeds[view].take(self._left_s(until_ns))
        return Reason.NO_FRAME if isinstance(taken, NoFrame) else taken

    def _look(self, view: str, window: Window, timeout_s: float) -> Lease | Reason | Ended | None:
        """Look at one view's frames that are there; None where the part's frame may still come."""
        while True:
            taken = self._held.pop(view, None) or self._feeds[view].take(timeout_s)
            if isinstance(taken, Ended):
                return taken
            if isinstance(taken, NoFrame):
                return None
            match window.pairing_of(taken.frame.exposed_ns):
                case Pairing.MATCH:
                    return taken
                case Pairing.LATER:
                    self._held[view] = taken
                    return Reason.NO_FRAME
                case Pairing.EARLIER:
                    taken.not_used()
                    timeout_s = 0.0  # whether there is time to wait for another is asked anew

    def _left_s(self, until_ns: int) -> float:
        return max(0.0, (until_ns - self._clock.monotonic_ns()) / 1e9)


def _let_go(found: Mapping[str, Lease | Reason]) -> Ended:
    for lease in found.values():
        if isinstance(lease, Lease):
            lease.not_used()
    return Ended()
