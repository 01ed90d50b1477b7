"""Which frame shows the part of a trigger, told by the times alone and by what the source knows of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from agent.capture.frame import TimeClass
from agent.line.trigger import Trigger, TriggerKind
from wire.inspection import Reason


class Pairing(enum.Enum):
    """How a frame stands to a trigger."""

    EARLIER = "earlier"  # it shows a part before this one: not triggered, look at the next
    MATCH = "match"
    LATER = "later"  # it shows a part after this one: keep it, this part has no frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When the frame of a part was exposed, monotonic; None where there is no such bound."""

    from_ns: int | None = None
    to_ns: int | None = None

    def pairing_of(self, exposed_ns: int) -> Pairing:
        """Compare a frame's exposure with the window; both bounds belong to it."""
        if self.from_ns is not None and exposed_ns < self.from_ns:
            return Pairing.EARLIER
        return Pairing.LATER if self.to_ns is not None and exposed_ns > self.to_ns else Pairing.MATCH


ANY: Window = Window()


def window_of(
    trigger: Trigger, view: str, time_class: TimeClass, *, tolerance_ms: float, latency_ms: float, standstill: bool
) -> Window | Reason:
    """Return when a view's frame of a trigger's part was exposed, or why nobody can tell.

    Args:
        tolerance_ms: how far an exposure may be from its trigger, where exposures are known.
        latency_ms: where only arrivals are known: what arrives so long after the trigger was exposed after it.
        standstill: the part stays in front of the camera until its verdict.
    """
    if time_class is TimeClass.RECORDED or trigger.kind is TriggerKind.NEXT_FRAME or trigger.seen_by == view:
        return ANY
    if trigger.kind is TriggerKind.FRESH_FRAME:
        return Window(from_ns=trigger.at_ns)
    if time_class is not TimeClass.ARRIVAL_ONLY:
        tolerance_ns = int(tolerance_ms * 1e6)
        return Window(from_ns=trigger.at_ns - tolerance_ns, to_ns=trigger.at_ns + tolerance_ns)
    return Window(from_ns=trigger.at_ns + int(latency_ms * 1e6)) if standstill else Reason.TIME_CLASS


def pair(trigger_ns: int, exposed_ns: int, tolerance_ms: float) -> Pairing:
    """Compare a frame's exposure with a trigger on the device's monotonic clock."""
    tolerance_ns = int(tolerance_ms * 1e6)
    return Window(from_ns=trigger_ns - tolerance_ns, to_ns=trigger_ns + tolerance_ns).pairing_of(exposed_ns)
