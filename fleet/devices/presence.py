"""Decides whether a state from a device is news. Pure.

Rules:

1. A state of an earlier boot is old, whatever it says: a will that comes late never overrules a later birth.
2. Of the same boot, a birth or report counts when its revision is higher; the same again is a retained duplicate.
3. Of the same boot, a will counts whatever its revision: it was written when the connection was made.
   It does not move the revision, so that the next birth is news.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.messages import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the fleet holds of a device's states."""

    boot: int
    revision: int
    online: bool


def after(known: Known, state: State) -> Known | None:
    """Return what the fleet knows after a state, None where the state is no news."""
    if state.boot < known.boot:
        return None
    if not state.online:
        if state.boot == known.boot and not known.online:
            return None
        revision = known.revision if state.boot == known.boot else 0
        return Known(boot=state.boot, revision=revision, online=False)
    if state.boot == known.boot and state.revision <= known.revision:
        return None
    return Known(boot=state.boot, revision=state.revision, online=True)
