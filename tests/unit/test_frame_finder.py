"""Which frame shows a part: by what the source knows of times; a lost camera costs its own view only."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass, Vital
from agent.inspection import frames
from agent.inspection.frames import FrameFinder
from agent.inspection.pairing import ANY, Window, window_of
from agent.line.trigger import Trigger, TriggerKind
from tests.support.station import CLOCK, ListSource, frame_of, trigger
from wire.inspection import Reason

MS = 1_000_000
EVENT = trigger(1)


def of_kind(kind: TriggerKind, *, seen_by: str | None = None) -> Trigger:
    return dataclasses.replace(EVENT, kind=kind, seen_by=seen_by)


@pytest.mark.parametrize(
    ("event", "time_class", "standstill", "expected"),
    [
        (of_kind(TriggerKind.PART), TimeClass.RECORDED, False, ANY),
        (of_kind(TriggerKind.NEXT_FRAME), TimeClass.ARRIVAL_ONLY, False, ANY),
        (of_kind(TriggerKind.PART, seen_by="top"), TimeClass.ARRIVAL_ONLY, False, ANY),
        (of_kind(TriggerKind.PART, seen_by="side"), TimeClass.ARRIVAL_ONLY, False, Reason.TIME_CLASS),
        (of_kind(TriggerKind.FRESH_FRAME), TimeClass.ARRIVAL_ONLY, False, Window(from_ns=EVENT.at_ns)),
        (of_kind(TriggerKind.PART), TimeClass.ARRIVAL_ONLY, False, Reason.TIME_CLASS),
        (of_kind(TriggerKind.PART), TimeClass.ARRIVAL_ONLY, True, Window(from_ns=EVENT.at_ns + 300 * MS)),
        *(
            (
                of_kind(TriggerKind.PART),
                known,
                standstill,
                Window(from_ns=EVENT.at_ns - 50 * MS, to_ns=EVENT.at_ns + 50 * MS),
            )
            for known in (TimeClass.HARDWARE_TRIGGERED, TimeClass.DEVICE_TIMESTAMPED)
            for standstill in (False, True)
        ),
    ],
)
def test_the_frame_of_a_part_was_exposed_in_this_window(
    event: Trigger, time_class: TimeClass, standstill: bool, expected: Window | Reason
) -> None:
    found = window_of(event, "top", time_class, tolerance_ms=50, latency_ms=300, standstill=standstill)
    assert found == expected


class Camera(ListSource):
    """Live, of any time class; what is appended to `later` comes when its time has come."""

    def __init__(self, shown: list[Frame], time_class: TimeClass = TimeClass.HARDWARE_TRIGGERED) -> None:
        super().__init__(shown)
        self._time_class = time_class

    def open(self) -> SourceInfo:
        return SourceInfo(camera="cam", time_class=self._time_class, live=True)


class Streaming(Camera):
    """A frame every 10 ms, stamped with its arrival."""

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        time.sleep(0.01)
        frame = frame_of(EVENT, score_percent=0)
        return dataclasses.replace(frame, exposed_ns=CLOCK.monotonic_ns())


def finder_of(feeds: dict[str, Feed], time_class: TimeClass, latency_ms: float = 100.0) -> FrameFinder:
    return FrameFinder(feeds, dict.fromkeys(feeds, time_class), 50.0, CLOCK, dict.fromkeys(feeds, latency_ms))


def opened(source: ListSource, policy: str = "every") -> Feed:
    feed = Feed(source, policy="latest" if policy == "latest" else "every")
    feed.open()
    return feed


def wait_for_frame(feed: Feed) -> None:
    until = time.monotonic() + 3
    while not feed.counts().waiting and time.monotonic() < until:
        time.sleep(0.002)


def test_a_lost_camera_does_not_cost_the_frame_of_another_whose_mailbox_goes_on() -> None:
    event = trigger(1)
    mine = frame_of(event, score_percent=10)
    next_one = frame_of(event, score_percent=90, apart_ms=2000)
    lost, alive = Camera([]), Camera([mine])
    feeds = {"lost": opened(lost), "alive": opened(alive, "latest")}
    wait_for_frame(feeds["alive"])
    replacing = threading.Timer(0.05, lambda: alive._frames.append(next_one))
    replacing.start()
    found = finder_of(feeds, TimeClass.HARDWARE_TRIGGERED).find(["lost", "alive"], event, event.at_ns + 200 * MS)
    replacing.join()
    assert not isinstance(found, Ended)
    assert found["lost"] is Reason.NO_FRAME
    assert isinstance(found["alive"], Lease), "the frame was replaced while the other camera was waited for"
    assert found["alive"].frame is mine


def test_all_views_are_given_up_at_the_same_instant() -> None:
    event = trigger(1)
    feeds = {name: opened(Camera([])) for name in ("a", "b", "c")}
    started = time.monotonic()
    found = finder_of(feeds, TimeClass.HARDWARE_TRIGGERED).find(["a", "b", "c"], event, event.at_ns + 100 * MS)
    assert found == dict.fromkeys(("a", "b", "c"), Reason.NO_FRAME)
    assert time.monotonic() - started < 0.25


def test_a_part_that_stands_still_is_shown_by_a_frame_that_arrived_after_the_streams_latency() -> None:
    feed = opened(Streaming([], TimeClass.ARRIVAL_ONLY))
    wait_for_frame(feed)
    event = trigger(1)
    finder = finder_of({"top": feed}, TimeClass.ARRIVAL_ONLY, latency_ms=80)
    found = finder.find(["top"], event, event.at_ns + 1000 * MS, standstill=True)
    feed.close()
    assert not isinstance(found, Ended)
    lease = found["top"]
    assert isinstance(lease, Lease)
    assert 80 * MS <= lease.frame.exposed_ns - event.at_ns < 500 * MS


def test_an_endless_stream_of_early_frames_does_not_hold_a_part_beyond_its_time() -> None:
    feed = opened(Streaming([], TimeClass.ARRIVAL_ONLY))
    event = trigger(1)
    finder = finder_of({"top": feed}, TimeClass.ARRIVAL_ONLY, latency_ms=5000)
    started = time.monotonic()
    found = finder.find(["top"], event, event.at_ns + 100 * MS, standstill=True)
    feed.close()
    assert found == {"top": Reason.NO_FRAME}
    assert time.monotonic() - started < 0.5


def test_a_fresh_frame_is_never_an_old_one_from_the_mailbox() -> None:
    old_event = trigger(1, age_ms=5000)
    source = Camera([frame_of(old_event, score_percent=90)])
    feed = opened(source, "latest")
    wait_for_frame(feed)
    event = dataclasses.replace(trigger(2), kind=TriggerKind.FRESH_FRAME)
    source._frames.append(frame_of(event, score_percent=10, apart_ms=5))
    found = finder_of({"top": feed}, TimeClass.ARRIVAL_ONLY).find(["top"], event, event.at_ns + 1000 * MS)
    assert not isinstance(found, Ended)
    lease = found["top"]
    assert isinstance(lease, Lease)
    assert lease.frame.number == 2


def test_a_source_that_ends_gives_the_other_views_frames_back() -> None:
    class Ending(Camera):
        def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
            return Ended()

    event = trigger(1)
    feeds = {"top": opened(Camera([frame_of(event, score_percent=1)])), "side": opened(Ending([]))}
    found = finder_of(feeds, TimeClass.HARDWARE_TRIGGERED).find(["top", "side"], event, event.at_ns + 1000 * MS)
    assert isinstance(found, Ended)
    assert feeds["top"].counts().not_triggered == 1


def test_of_several_troubles_the_one_that_explains_the_others_is_named() -> None:
    every = tuple(reversed(Vital))
    told = []
    while every:
        reason = frames.reason_of(every)
        told.append(reason)
        every = tuple(vital for vital in every if frames.REASON_OF[vital] is not reason)
    assert told == [
        Reason.FRAME_CORRUPT,
        Reason.CAMERA_SETTINGS,
        Reason.FRAME_WRONG_SIZE,
        Reason.FRAME_BLACK,
        Reason.FRAME_SATURATED,
        Reason.FRAME_FROZEN,
        Reason.CAMERA_MOVED,
        Reason.FRAME_BLURRED,
    ]
    assert frames.reason_of(()) is Reason.NONE
