"""Whether a maintenance window is open: a function of the windows, the site's time zone and the moment.

What counts is the clock on the site's wall. When it is put forward, a window within the hour that is left out does not
come that day, and one that reaches into it is shorter; when it is put back, one within the hour that comes twice is
open both times.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from typing import Final, Protocol

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(Protocol):
    """What is looked at of a window; `agent.deploy.settings.WindowSettings` in the product."""

    @property
    def start(self) -> str: ...
    @property
    def end(self) -> str: ...
    @property
    def days(self) -> Iterable[str]: ...


def is_open(windows: Iterable[Window], zone: tzinfo, now_utc: datetime) -> bool:
    """Tell whether any of the windows is open; the minute of its end is outside."""
    here = now_utc.astimezone(zone)
    time = here.strftime("%H:%M")
    today, yesterday = _DAYS[here.weekday()], _DAYS[(here.date() - timedelta(days=1)).weekday()]
    for window in windows:
        if window.start < window.end:
            if today in window.days and window.start <= time < window.end:
                return True
        elif (today in window.days and time >= window.start) or (yesterday in window.days and time < window.end):
            return True
    return False
