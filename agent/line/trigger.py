"""A trigger: the event that says a part is there; and the seam between a station and its line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from wire.inspection import Mode, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One part has reached the station.

    Args:
        id: unique for ever: run of the line's controller and its sequence, or made by the agent.
        run: the run of the controller the sequence belongs to; empty where the trigger has no sequence.
        sequence: the line's own count, from 1 in each run.
        at_ns: monotonic clock of this device at the trigger.
    """

    id: str
    run: str
    sequence: int | None
    at_ns: int
    at_utc: datetime
    part_id: str | None = None
    lot: str | None = None
    mode: Mode = Mode.PRODUCTION


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePosition:
    """The controller's own count when the agent connected: what it triggered up to here and we never saw was missed."""

    run: str
    sequence: int


class Line(Protocol):
    """Triggers in, verdicts out, for one station."""

    def take(self, timeout_s: float) -> Trigger | LinePosition | None:
        """Return the next event; None when none came in time."""

    def answer(self, trigger: Trigger, verdict: Verdict) -> None:
        """Send the verdict of one trigger; never blocks for longer than the line's own time-out."""

    def set_ready(self, *, ready: bool) -> None:
        """Tell the line whether the station can judge parts."""

    def close(self) -> None:
        """Leave the line in its fail-safe state."""
