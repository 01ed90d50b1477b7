"""The reporter: health, status, troubles as they begin and end, and threads that have gone silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import status
from agent.capture.accounts import FeedHealth, FrameCounts
from agent.capture.frame import Vital
from agent.clock import SystemClock
from agent.health import reporter as reporters
from agent.health import troubles
from agent.health.probes import Probes
from agent.health.reporter import Overview, Reporter
from agent.health.station_report import Surroundings
from agent.line.trigger import OutputCounts
from agent.threads import Worker
from tests.support.station import ScriptedLine, worker_of
from wire.errors import LinesideError
from wire.messages import Event, Health, Lane
from wire.mint import Mint


class Outbox:
    """Takes health and events in order, unless it is full; tells that it is empty."""

    unsettled = bytes = dropped = 0

    def __init__(self) -> None:
        self.health: list[Health] = []
        self.events: list[Event] = []
        self.meta: dict[str, str] = {}
        self.is_full = False
        self.dropped_by_lane: dict[Lane, int] = {}

    def put(self, lane: Lane, body: Any) -> int:
        if self.is_full:
            raise LinesideError("storage.full", "No room.")
        (self.health if lane is Lane.HEALTH else self.events).append(body)
        return 1

    def stats(self) -> Outbox:
        return self

    def emit_counters(self) -> int:
        return 0

    def meta_get(self, key: str) -> str | None:
        return self.meta.get(key)

    def meta_set(self, key: str, value: str) -> None:
        self.meta[key] = value


@dataclass
class View:
    """A feed whose state a test sets."""

    health_now: FeedHealth = field(default_factory=lambda: FeedHealth(connected=True, frame_age_ms=12.0))
    frames_in: int = 0

    def counts(self) -> FrameCounts:
        return FrameCounts(frames_in=self.frames_in, used=self.frames_in, not_triggered=0, dropped={}, waiting=0)

    def health(self) -> FeedHealth:
        return self.health_now


@dataclass
class Lamp:
    """An output that gets through, or not."""

    name: str = "lamp"
    trouble: str = ""

    def counts(self) -> OutputCounts:
        return OutputCounts(sent=3, dropped=0, failed=1, trouble=self.trouble)


class QuickClock(SystemClock):
    """Does not wait a whole second between two looks."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(min(seconds, 0.01))


def reporter_of(
    folder: Path,
    outbox: Outbox,
    heartbeats: dict[str, int] | None = None,
    views: dict[str, View] | None = None,
    around: Surroundings | None = None,
) -> Reporter:
    worker = worker_of(ScriptedLine(), {"top": []})
    return Reporter(
        device="press-1",
        agent_version="0",
        data_dir=folder,
        outbox=outbox,
        probes=Probes(folder),
        workers={"gauge": worker},
        feeds={"gauge": views or {}},
        threads=[],
        heartbeats={name: lambda at=at: at for name, at in (heartbeats or {}).items()},
        overview=lambda: Overview(
            connected=True,
            mqtt_protocol="5",
            desired_revision=1,
            pictures_waiting=0,
            models=(),
            refusals=(),
            local_address="127.0.0.1:8090",
        ),
        clock=QuickClock(),
        mint=Mint(),
        interval_s=10,
        around={"gauge": around or Surroundings()},
    )


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)


class Runs:
    """A reporter on its thread."""

    def __init__(self, reporter: Reporter) -> None:
        self.thread = Worker("reporter-test", reporter.run)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        assert self.thread.join(3)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Troubles are told when they are seen."""
    monkeypatch.setattr(troubles, "STANDS_NS", 0)
    monkeypatch.setattr(reporters, "_TROUBLES_AFTER_S", 0.0)


def names(outbox: Outbox) -> list[str]:
    return [event.name for event in outbox.events]


def test_a_network_thread_that_is_silent_for_minutes_is_named(tmp_path: Path) -> None:
    now = time.monotonic_ns()
    outbox = Outbox()
    reporter = reporter_of(
        tmp_path, outbox, {"uplink": now, "pictures": now - 60_000_000_000, "outbox-flusher": now - 200_000_000_000}
    )
    with Runs(reporter):
        wait_for(lambda: bool(outbox.health))
    assert outbox.health[0].threads_stalled == ("outbox-flusher",)


def test_health_tells_of_each_view_its_camera_and_the_processes(tmp_path: Path) -> None:
    outbox = Outbox()
    view = View(frames_in=50)
    around = Surroundings(
        line="modbus 10.0.0.5:502", sources={"top": ("rtsp://10.0.0.7/live", "arrival_only")}, outputs=(Lamp(),)
    )
    reporter = reporter_of(tmp_path, outbox, views={"top": view}, around=around)
    began = time.monotonic()
    assert reporter.status().stations[0].health.views[0].fps_in is None  # asked before its first look
    time.sleep(0.05)
    view.frames_in = 60
    with Runs(reporter):
        wait_for(lambda: bool(outbox.health))
    took_s = time.monotonic() - began
    health = outbox.health[0]
    seen = health.stations[0].views[0]
    assert (seen.view, seen.connected, seen.frames_in, seen.frame_age_ms) == ("top", True, 60, 12.0)
    assert seen.fps_in is not None
    assert 10 / took_s < seen.fps_in <= 200
    assert [process.name for process in health.processes] == ["agent"]
    assert health.processes[0].private_bytes is not None

    station = status.read(tmp_path).stations[0]
    assert station.line == "modbus 10.0.0.5:502"
    assert (station.views[0].source, station.views[0].time_class) == ("rtsp://10.0.0.7/live", "arrival_only")
    assert [(output.name, output.sent, output.failed) for output in station.outputs] == [("lamp", 3, 1)]
    assert [(recipe.id, recipe.active) for recipe in station.recipes] == [("default", True)]
    assert status.read(tmp_path).local_address == "127.0.0.1:8090"
    assert 'lineside_view_connected{station="gauge",view="top"} 1' in reporter.metrics()


@pytest.mark.usefixtures("at_once")
def test_a_lost_camera_a_bad_picture_a_line_and_an_output_are_told_as_they_begin_and_end(tmp_path: Path) -> None:
    outbox, view, lamp, line = Outbox(), View(), Lamp(), [""]
    around = Surroundings(line_trouble=lambda: line[0], outputs=(lamp,))
    with Runs(reporter_of(tmp_path, outbox, views={"top": view}, around=around)):
        wait_for(lambda: bool(outbox.health))
        assert names(outbox) == []
        view.health_now = FeedHealth(connected=False, trouble="no frame within 3 s", raised=(Vital.BLURRED,))
        lamp.trouble, line[0] = "refused", "no answer from 10.0.0.5:502"
        wait_for(lambda: len(outbox.events) == 4)
        view.health_now, lamp.trouble, line[0] = FeedHealth(connected=True), "", ""
        wait_for(lambda: len(outbox.events) == 8)
    assert set(names(outbox)[:4]) == {"camera.lost", "vital.raised", "line.lost", "output.lost"}
    assert set(names(outbox)[4:]) == {"camera.found", "vital.cleared", "line.found", "output.found"}
    texts = [event.text for event in outbox.events]
    assert "gauge/top: the camera is lost: no frame within 3 s." in texts
    assert "gauge/lamp: verdicts do not get through: refused." in texts


@pytest.mark.usefixtures("at_once")
def test_an_event_that_finds_no_room_is_sent_when_there_is_some(tmp_path: Path) -> None:
    outbox, view = Outbox(), View()
    reporter = reporter_of(tmp_path, outbox, views={"top": view})
    with Runs(reporter):
        wait_for(lambda: bool(outbox.health))
        outbox.is_full = True
        view.health_now = FeedHealth(connected=False, trouble="gone")
        wait_for(lambda: bool(reporter._events))
        time.sleep(0.05)
        assert (names(outbox), outbox.meta.get("troubles_told")) == ([], None)
        outbox.is_full = False
        wait_for(lambda: "CAMERA" in outbox.meta.get("troubles_told", ""))
    assert names(outbox) == ["camera.lost"]


@pytest.mark.usefixtures("at_once")
def test_the_end_of_a_trouble_is_told_by_the_next_run_of_the_agent(tmp_path: Path) -> None:
    outbox = Outbox()
    lost = View(FeedHealth(connected=False, trouble="gone"))
    with Runs(reporter_of(tmp_path, outbox, views={"top": lost})):
        wait_for(lambda: bool(outbox.events))
    with Runs(reporter_of(tmp_path, outbox, views={"top": View()})):
        wait_for(lambda: len(outbox.events) == 2)
    assert names(outbox) == ["camera.lost", "camera.found"]
    outbox.meta["troubles_told"] = "no JSON"
    reporter_of(tmp_path, outbox)  # what cannot be read costs nothing
