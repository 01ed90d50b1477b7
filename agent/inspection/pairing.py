"""Which frame shows the part of a trigger, told by the two times alone."""

from __future__ import annotations

import enum


class Pairing(enum.Enum):
    """How a frame stands to a trigger."""

    EARLIER = "earlier"  # it shows a part before this one: not triggered, look at the next
    MATCH = "match"
    LATER = "later"  # it shows a part after this one: keep it, this part has no frame


def pair(trigger_ns: int, exposed_ns: int, tolerance_ms: float) -> Pairing:
    """Compare a frame's exposure with a trigger on the device's monotonic clock."""
    apart_ms = (exposed_ns - trigger_ns) / 1e6
    if apart_ms < -tolerance_ms:
        return Pairing.EARLIER
    return Pairing.LATER if apart_ms > tolerance_ms else Pairing.MATCH
