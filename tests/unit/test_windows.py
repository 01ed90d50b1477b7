"""Maintenance windows by the clock on the wall, over nights that are an hour short or long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from agent.deploy import windows
from agent.deploy.settings import WindowSettings

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = WindowSettings(days=("mon", "fri"), start="22:00", end="05:00")
NOON = WindowSettings(start="12:00", end="12:30")
SUNDAY = WindowSettings(days=("sun",), start="00:00", end="24:00")
LEFT_OUT = WindowSettings(start="02:15", end="02:45")
REACHES_IN = WindowSettings(start="01:30", end="02:30")
REACHES_OUT = WindowSettings(start="02:30", end="03:30")


@pytest.mark.parametrize(
    ("window", "utc", "open_"),
    [
        # winter: Berlin is UTC+1. 2026-01-05 is a Monday
        (NIGHT, "2026-01-05 20:59", False),
        (NIGHT, "2026-01-05 21:00", True),
        (NIGHT, "2026-01-06 03:59", True),  # Tuesday morning belongs to Monday's window
        (NIGHT, "2026-01-06 04:00", False),
        (NIGHT, "2026-01-06 21:30", False),  # Tuesday evening has none
        (NIGHT, "2026-01-05 03:00", False),  # Monday morning would be Sunday's
        (NIGHT, "2026-01-10 02:00", True),  # Saturday morning is Friday's
        (NOON, "2026-01-07 11:00", True),
        (NOON, "2026-01-07 11:29", True),
        (NOON, "2026-01-07 11:30", False),
        (NOON, "2026-07-07 10:00", True),  # summer: UTC+2
        (NOON, "2026-07-07 11:00", False),
        (SUNDAY, "2026-01-03 22:59", False),
        (SUNDAY, "2026-01-03 23:00", True),
        (SUNDAY, "2026-01-04 22:59", True),
        (SUNDAY, "2026-01-04 23:00", False),
        # 2026-03-29: at 01:00 UTC the wall clock goes from 02:00 to 03:00
        (LEFT_OUT, "2026-03-28 01:30", True),
        (LEFT_OUT, "2026-03-29 01:30", False),  # 03:30
        (REACHES_IN, "2026-03-29 00:59", True),  # 01:59
        (REACHES_IN, "2026-03-29 01:00", False),  # 03:00
        (REACHES_OUT, "2026-03-29 00:45", False),  # 01:45
        (REACHES_OUT, "2026-03-29 01:00", True),  # 03:00
        (REACHES_OUT, "2026-03-29 01:30", False),
        # 2026-10-25: at 01:00 UTC the wall clock goes from 03:00 back to 02:00
        (LEFT_OUT, "2026-10-25 00:30", True),  # 02:30 for the first time
        (LEFT_OUT, "2026-10-25 01:00", False),  # 02:00 once more
        (LEFT_OUT, "2026-10-25 01:30", True),  # 02:30 once more
        (LEFT_OUT, "2026-10-25 02:00", False),  # 03:00
    ],
)
def test_a_window_is_open_by_the_clock_on_the_wall(window: WindowSettings, utc: str, open_: bool) -> None:
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert windows.is_open([window], BERLIN, now) is open_


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 24), ("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_that_is_open_as_a_whole_has_as_many_hours_as_it_has(day: str, hours: int) -> None:
    weekday = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[datetime.fromisoformat(day).weekday()]
    whole = WindowSettings(days=(weekday,), start="00:00", end="24:00")  # type: ignore[arg-type]
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=12)
    moments = [start + timedelta(minutes=15 * number) for number in range(48 * 4)]
    assert sum(windows.is_open([whole], BERLIN, moment) for moment in moments) == hours * 4


def test_one_open_window_is_enough_and_none_is_closed() -> None:
    noon = datetime(2026, 1, 7, 11, 15, tzinfo=UTC)
    assert windows.is_open([NIGHT, NOON], BERLIN, noon)
    assert not windows.is_open([], BERLIN, noon)
