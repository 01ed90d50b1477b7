"""Whether a version may be swapped on this site's line at this moment, and if not, why."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable
from pathlib import Path

from agent.clock import Clock
from agent.deploy import line_busy, windows
from wire.deployment import HoldReason


class Site:
    """The maintenance windows and the lock of the line.

    Args:
        allowed: the windows; without any, every time is right.
        timezone: of the site.
        data_dir: where the lock lies.
    """

    def __init__(self, allowed: Iterable[windows.Window], timezone: str, data_dir: Path, clock: Clock) -> None:
        self._windows = tuple(allowed)
        self._zone = zoneinfo.ZoneInfo(timezone)
        self._data_dir = data_dir
        self._clock = clock

    def not_now(self) -> HoldReason | None:
        """Return what speaks against a swap now; a closed window before a busy line."""
        now_utc = self._clock.now_utc()
        if self._windows and not windows.is_open(self._windows, self._zone, now_utc):
            return HoldReason.MAINTENANCE_WINDOW
        if line_busy.read(self._data_dir, now_utc) is not None:
            return HoldReason.LINE_BUSY
        return None
