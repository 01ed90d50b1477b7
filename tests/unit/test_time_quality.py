"""What the wall clock is worth: a wrong clock is called suspect, and asked at most once a second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.clock import FakeClock
from agent.health import time_quality
from agent.health.time_quality import WallClock, assess
from agent.inspection.records import TimeQuality
from wire.inspection import TimeSource

NOW = datetime(2027, 3, 1, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "seen", "suspect"),
    [
        (NOW, NOW, False),
        (NOW, NOW + timedelta(seconds=59), False),  # a small step back, as a time server may take
        (NOW, NOW + timedelta(seconds=61), True),  # time has been seen that has not come yet
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), True),  # before this software was made
    ],
)
def test_a_clock_is_suspect_when_it_contradicts_what_was_seen(now: datetime, seen: datetime, *, suspect: bool) -> None:
    assert (assess(now, ms(seen)).source is TimeSource.SUSPECT) is suspect


@pytest.mark.parametrize(
    ("now", "seen", "source", "right"),
    [
        (NOW, NOW, TimeSource.FREE_RUNNING, True),  # no time server for years, but a battery: it is believed
        (NOW, NOW + timedelta(seconds=61), TimeSource.FREE_RUNNING, False),
        (NOW, NOW + timedelta(days=3650), TimeSource.SYNCHRONISED, True),  # it was wrong once, and set right since
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), TimeSource.FREE_RUNNING, False),
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), TimeSource.SYNCHRONISED, False),
    ],
)
def test_a_clock_is_right_unless_it_contradicts_what_was_seen_and_nobody_sets_it(
    now: datetime, seen: datetime, source: TimeSource, *, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_quality, "_kernel_quality", lambda: TimeQuality(source=source))
    assert WallClock(FakeClock(now), lambda: ms(seen)).is_right() is right


def test_a_synchronised_clock_tells_its_uncertainty_and_a_free_one_does_not() -> None:
    quality = assess(NOW, 0)
    assert (quality.uncertainty_ms is None) == (quality.source is TimeSource.FREE_RUNNING)


def test_the_clock_is_asked_at_most_once_a_second() -> None:
    clock = FakeClock(NOW)
    seen = [0]
    wall = WallClock(clock, lambda: seen[0])
    assert wall.quality().source is not TimeSource.SUSPECT
    seen[0] = ms(NOW + timedelta(days=1))
    assert wall.quality().source is not TimeSource.SUSPECT
    clock.advance(1.1)
    assert wall.quality().source is TimeSource.SUSPECT
