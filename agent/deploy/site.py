"""Whether a version may be swapped on this site's line at this moment, and if not, why."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterable
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
        is_clock_right: whether the time of the day can be told by the clock. While it cannot, no window counts: a clock
            that begins in 1970 would open one in the middle of a shift.
    """

    def __init__(
        self,
        allowed: Iterable[windows.Window],
        timezone: str,
        data_dir: Path,
        clock: Clock,
        is_clock_right: Callable[[], bool] = lambda: True,
    ) -> None:
        self._windows = tuple(allowed)
        self._zone = zoneinfo.ZoneInfo(timezone)
        self._data_dir = data_dir
        self._clock = clock
        self._is_clock_right = is_clock_right

    def not_now(self) -> HoldReason | None:
        """Return what speaks against a swap now; a closed window before a busy line."""
        now_utc = self._clock.now_utc()
        if self._windows and not (self._is_clock_right() and windows.is_open(self._windows, self._zone, now_utc)):
            return HoldReason.MAINTENANCE_WINDOW
        if line_busy.read(self._data_dir, now_utc) is not None:
            return HoldReason.LINE_BUSY
        return None

    def words(self) -> str:
        """Return what a person must know beside that reason; nothing where the reason says all."""
        if not self._windows or self._is_clock_right():
            return ""
        here = self._clock.now_utc().astimezone(self._zone)
        return (
            f"The clock of this device is wrong: it says {here:%Y-%m-%d %H:%M} ({self._zone.key}). No window counts "
            "until it is set, by a time server or by hand."
        )
