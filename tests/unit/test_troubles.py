"""Troubles are told when they have stood, called over when they are, and never flood: a table of situations."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.capture.frame import Vital
from agent.health.troubles import STANDS_NS, VITAL_WORDS, Kind, Trouble, TroubleWatch, troubles_of
from wire.messages import Event, Health, Severity, StationHealth, ViewHealth

SECOND_NS = 1_000_000_000
LOST = Trouble(kind=Kind.CAMERA, place="outlet/side", text="the camera is lost: no frame within 3 s")


def view_of(**more: Any) -> ViewHealth:
    values = {"view": "side", "connected": True, "frames_in": 9, "frames_used": 9, "frames_not_triggered": 0}
    return ViewHealth(**(values | more))


def health_of(*views: ViewHealth, not_ready: str = "", **more: Any) -> Health:
    station = StationHealth(
        station="outlet",
        triggers=0,
        verdicts=0,
        frames_in=0,
        frames_used=0,
        frames_not_triggered=0,
        frames_dropped=0,
        not_ready=not_ready,
        views=views,
    )
    values = {
        "at": datetime(2026, 11, 21, tzinfo=UTC),
        "uptime_s": 1.0,
        "cpu_fraction": 0.1,
        "rss_bytes": 1,
        "disk_free_bytes": 3_000_000_000,
        "disk_free_fraction": 0.5,
        "outbox_unsettled": 0,
        "outbox_bytes": 0,
        "outbox_dropped": 0,
        "stations": (station,),
    }
    return Health(**(values | more))


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (health_of(view_of()), []),
        (health_of(view_of(connected=False, trouble="no frame within 3 s")), ["CAMERA outlet/side "]),
        (health_of(view_of(connected=False)), []),  # a clip that has ended
        (health_of(view_of(vitals=("blurred", "moved"))), ["VITAL outlet/side blurred", "VITAL outlet/side moved"]),
        (health_of(not_ready="The view side has no model."), ["STATION outlet "]),
        (health_of(threads_stalled=("uplink",)), ["THREAD uplink "]),
        (health_of(disk_free_fraction=0.01), ["DISK  "]),
        (health_of(throttled=True), ["THROTTLING  "]),
        (health_of(throttled=None), []),
    ],
)
def test_what_is_wrong_is_read_from_health(health: Health, expected: list[str]) -> None:
    assert [trouble.key for trouble in troubles_of(health, {}, {})] == expected


def test_a_line_and_an_output_that_do_not_get_through_are_troubles() -> None:
    found = troubles_of(health_of(), {"outlet": "no answer from 10.0.0.5:502", "inlet": ""}, {"outlet/mqtt": "refused"})
    assert [(trouble.kind, trouble.text) for trouble in found] == [
        (Kind.LINE, "the line: no answer from 10.0.0.5:502"),
        (Kind.OUTPUT, "verdicts do not get through: refused"),
    ]


def test_every_vital_has_words() -> None:
    assert set(VITAL_WORDS) == {vital.value for vital in Vital}


def test_every_kinds_names_may_stand_in_an_event() -> None:
    names = [name for kind in Kind for name in (kind.raised, kind.cleared)]
    assert len(set(names)) == len(names)
    for name in names:
        Event(at=datetime(2026, 1, 1, tzinfo=UTC), name=name, severity=Severity.NOTE, text="")
        assert name.replace("_", "").replace(".", "").isalpha()
        assert name.islower()


def story(watch: TroubleWatch, *steps: tuple[float, bool]) -> list[str]:
    """Look each 0.5 s; (until second, whether the camera is lost). Returns what was told."""
    told, now_ns = [], SECOND_NS
    for until_s, is_lost in steps:
        while now_ns < until_s * SECOND_NS:
            told += [f"{now_ns // SECOND_NS} {one.name}: {one.text}" for one in watch.look([LOST] * is_lost, now_ns)]
            now_ns += SECOND_NS // 2
    return told


def test_a_camera_that_is_lost_is_told_once_and_its_return_once_with_how_long_it_took() -> None:
    assert story(TroubleWatch(), (10, False), (100, True), (200, False)) == [
        "13 camera.lost: outlet/side: the camera is lost: no frame within 3 s.",
        "103 camera.found: outlet/side: the camera is back after 90 s.",
    ]


def test_what_does_not_stand_is_not_told() -> None:
    assert story(TroubleWatch(), (10, False), (12, True), (50, False)) == []


def test_a_return_that_does_not_stand_is_not_told() -> None:
    told = story(TroubleWatch(), (10, True), (12, False), (30, True), (60, False))
    assert [line.split(":")[0] for line in told] == ["4 camera.lost", "33 camera.found"]


def test_what_comes_and_goes_is_told_rarely_and_its_end_always() -> None:
    watch = TroubleWatch()
    steps = [(10.0 + 5 * number, number % 2 == 0) for number in range(1, 361)]  # half an hour, a turn each 5 s
    told = story(watch, *steps, (2200, False))
    assert len(told) <= 4 + 31
    assert "camera.found" in told[-1]
    assert any("It came and went" in line for line in told)
    assert watch.told == {}


def test_a_hundred_troubles_at_once_are_told_little_by_little_and_none_is_forgotten() -> None:
    watch = TroubleWatch()
    many = [Trouble(kind=Kind.THREAD, place=f"thread-{number}", text="silent") for number in range(100)]
    told: list[str] = []
    counts = []
    for second in range(1, 200):
        new = watch.look(many, second * SECOND_NS)
        told += [one.text for one in new]
        counts.append(len(new))
    assert max(counts) == 60
    assert len(told) == len(set(told)) == 100


def test_a_trouble_that_was_told_before_a_restart_is_neither_told_again_nor_forgotten() -> None:
    first = TroubleWatch()
    assert len(story(first, (10, True))) == 1
    remembered = json.loads(json.dumps(first.told))
    assert story(TroubleWatch(remembered), (60, True)) == []
    assert story(TroubleWatch(remembered), (60, False)) == ["4 camera.found: outlet/side: the camera is back."]
    assert TroubleWatch({"GHOST outlet/side ": "of a later version"}).told == {}


def test_what_is_told_always_ends_as_it_is_whatever_happens() -> None:
    random_source = random.Random(7)
    for _ in range(50):
        watch, now_ns, here, told = TroubleWatch(), 0, False, []
        for _ in range(400):
            now_ns += random_source.randrange(1, 3 * SECOND_NS)
            here = here ^ (random_source.random() < 0.2)
            told += [one.name for one in watch.look([LOST] * here, now_ns)]
        for _ in range(200):
            now_ns += SECOND_NS
            told += [one.name for one in watch.look([LOST] * here, now_ns)]
        assert told == ["camera.lost", "camera.found"] * (len(told) // 2) + ["camera.lost"] * (len(told) % 2)
        assert bool(watch.told) is here


def test_what_is_over_for_long_takes_no_memory() -> None:
    watch = TroubleWatch()
    for number in range(1000):
        watch.look([Trouble(kind=Kind.THREAD, place=f"t-{number}", text="silent")], number * STANDS_NS * 2)
    watch.look([], 10**6 * SECOND_NS)
    watch.look([], (10**6 + 4) * SECOND_NS)
    watch.look([], (10**6 + 600) * SECOND_NS)
    assert watch._known == {}


def test_a_text_of_any_length_fits_an_event() -> None:
    watch = TroubleWatch()
    endless = Trouble(kind=Kind.CAMERA, place="outlet/side", text="x" * 5000)
    watch.look([endless], 0)
    (told,) = watch.look([endless], STANDS_NS)
    assert len(told.text) == 1000
