"""Frame rates over the last seconds, and health that always fits its budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from agent.health import fit
from agent.health.rates import FrameRates
from wire import codec, topics
from wire.messages import Batch, Entry, Health, Lane, ProcessHealth, ShadowHealth, StationHealth, ViewHealth

SECOND_NS = 1_000_000_000


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    rates = FrameRates()
    assert rates.add("outlet", "top", 0, 0, 0) is None
    assert rates.add("outlet", "top", 2 * SECOND_NS, 50, 6) == (25.0, 3.0)
    for second in range(3, 60):
        rates.add("outlet", "top", second * SECOND_NS, 25 * second, 3 * second)
    stopped = [rates.add("outlet", "top", second * SECOND_NS, 25 * 59, 3 * 59) for second in range(60, 72)]
    assert stopped[4] == (12.5, 1.5)
    assert stopped[-1] == (0.0, 0.0)


def test_the_time_a_camera_took_to_open_is_not_counted() -> None:
    rates = FrameRates()
    for second in range(6):
        rates.add("outlet", "top", second * SECOND_NS, 0, 0)
    assert rates.add("outlet", "top", 6 * SECOND_NS, 25, 3) == (25.0, 3.0)


def test_views_are_counted_apart() -> None:
    rates = FrameRates()
    rates.add("outlet", "top", 0, 0, 0)
    rates.add("outlet", "side", 0, 0, 0)
    rates.add("outlet", "top", SECOND_NS, 30, 1)
    assert rates.add("outlet", "side", SECOND_NS, 10, 1) == (10.0, 1.0)


def view(number: int, *, is_wrong: bool) -> ViewHealth:
    return ViewHealth(
        view=f"view-{number:02d}" + "v" * 50,
        connected=not is_wrong,
        trouble="no frame within 3 s " * 8 if is_wrong else "",
        frames_in=2**50,
        frames_used=2**50,
        frames_not_triggered=2**50,
        frames_dropped=dict.fromkeys(("replaced", "overflow", "closed"), 2**50),
        fps_in=24.987654321,
        fps_used=24.987654321,
        frame_age_ms=12.345678901,
        steps_ms=dict.fromkeys(("retrieve", "preprocess", "run", "decode", "judge"), (1.23456789012, 12.3456789012)),
    )


def health_of(stations: int, views: int, *, wrong: int = 0) -> Health:
    station = StationHealth(
        station="s" * 60,
        triggers=2**50,
        verdicts=2**50,
        frames_in=2**50,
        frames_used=2**50,
        frames_not_triggered=2**50,
        frames_dropped=2**50,
        not_ready="x" * 200,
        views=tuple(view(number, is_wrong=number < wrong) for number in range(views)),
        shadows=(ShadowHealth(model="m" * 60, digest="d" * 64, chosen=2**50, compared=2**50, disagreed=2**50),)
        * min(16, views),
    )
    return Health(
        at=datetime(2026, 11, 21, tzinfo=UTC),
        uptime_s=1.0,
        cpu_fraction=0.1,
        rss_bytes=1,
        disk_free_bytes=1,
        disk_free_fraction=0.5,
        outbox_unsettled=0,
        outbox_bytes=0,
        outbox_dropped=0,
        threads_stalled=("t" * 200,) * 50,
        stations=tuple(replace(station, station=f"{number:02d}") for number in range(stations)),
        processes=tuple(
            ProcessHealth(name="p" * 100, rss_bytes=1, private_bytes=1) for _ in range(min(64, 1 + stations * views))
        ),
    )


@pytest.mark.parametrize(("stations", "views"), [(1, 1), (4, 4), (8, 8), (32, 16)])
def test_health_of_any_device_fits_a_batch_of_its_own(stations: int, views: int) -> None:
    health = fit.fitted(health_of(stations, views, wrong=views // 4))
    entry = Entry(seq=2**53, body=msgspec.Raw(codec.encode(health)))
    batch = Batch(device="d" * 64, epoch="0" * 16, lane=Lane.HEALTH, entries=(entry,))
    assert len(codec.encode(batch)) <= topics.TABLE["health"].max_bytes
    assert len(health.stations) == stations


def test_health_of_a_usual_device_stays_as_it_is() -> None:
    health = replace(health_of(2, 3), threads_stalled=())
    assert fit.fitted(health) is health


def test_what_is_wrong_is_the_last_to_go() -> None:
    health = fit.fitted(health_of(8, 8, wrong=2))
    assert [[one.connected for one in station.views] for station in health.stations] == [[False, False]] * 8
