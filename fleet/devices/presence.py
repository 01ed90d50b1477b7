"""Decides whether a state from a device is news. Pure.

Boot and revision, in this order, tell which of two states is newer; the same again is a retained duplicate. The device
numbers its states so that a will is newer than all of its own connection and older than the birth of the next: a will
that comes late, of this boot or an earlier one, never overrules a later birth.
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
    if (state.boot, state.revision) <= (known.boot, known.revision):
        return None
    return Known(boot=state.boot, revision=state.revision, online=state.online)
