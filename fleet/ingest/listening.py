"""Decides since when the fleet takes in what devices send. Pure.

What a device says while nobody listens is not lost: it waits in its outbox, and its state at the broker. But until it
has come, its silence means nothing. So a short gap only delays a verdict, and after a long one all waiting begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

GOES_ON: Final = timedelta(seconds=30)  # signs of life come every 5 s
SHORT_GAP: Final = timedelta(hours=1)  # a restart, an update of the server
SETTLES_IN: Final = timedelta(minutes=10)  # then what had waited in outboxes has come


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """One ingest worker's account of its own; all times by the server's clock.

    Args:
        since: it has been connected to the broker since then, short gaps left out.
        resumed_at: the end of its newest gap.
        heard_at: it was connected then.
    """

    since: datetime
    resumed_at: datetime
    heard_at: datetime

    @property
    def settled_at(self) -> datetime:
        """When the silence of a device begins to mean something."""
        return self.resumed_at + SETTLES_IN


def after(former: Listening | None, now: datetime) -> Listening:
    """Return the account of a worker that is connected now."""
    gap = now - former.heard_at if former is not None else SHORT_GAP
    if former is None or gap >= SHORT_GAP:
        return Listening(since=now, resumed_at=now, heard_at=now)
    return replace(former, resumed_at=now if gap > GOES_ON else former.resumed_at, heard_at=now)


def at(listening: Listening | None, now: datetime) -> Listening | None:
    """Return the account where it holds now, None where the worker has fallen silent or lost the broker."""
    return listening if listening is not None and now - listening.heard_at <= GOES_ON else None
