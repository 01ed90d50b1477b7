"""What a feed does beside handing frames on: it asks, looks, shows, tells, and gives every picture back once."""

from __future__ import annotations

import dataclasses
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture.accounts import FrameCounts
from agent.capture.demand import ViewDemand
from agent.capture.feed import Feed, Lease, Policy
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass, Vital
from wire.desired import CameraSettings

LOCKED = ViewDemand(recipe="default", camera=CameraSettings(exposure_us=500.0))


class Lens:
    """A source that gives what a test puts into it, and counts how often each frame was given back."""

    def __init__(self, *, live: bool = True, time_class: TimeClass = TimeClass.DEVICE_TIMESTAMPED) -> None:
        self.answers: queue.Queue[Frame | NoFrame | Ended] = queue.Queue()
        self.freed: Counter[int] = Counter()
        self.idle = NoFrame(reason="the belt stands", expected=True)
        self._info = SourceInfo(camera="lens", time_class=time_class, live=live)

    def show(self, number: int, level: int = 0) -> None:
        self.answers.put(
            Frame(
                camera="lens",
                number=number,
                exposed_utc=datetime(2026, 1, 1, tzinfo=UTC),
                exposed_ns=number,
                image_bgr=np.full((4, 4, 3), level, dtype=np.uint8),
                free=lambda: self.freed.update([number]),
            )
        )

    def open(self) -> SourceInfo:
        return self._info

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        try:
            return self.answers.get(timeout=min(timeout_s, 0.01))
        except queue.Empty:
            return self.idle

    def close(self) -> None:
        pass


class SupervisedLens(Lens):
    """The same with a process behind it."""

    trouble = ""
    restarts = 3
    process_id = 4711

    def __init__(self) -> None:
        super().__init__()
        self.demands: list[ViewDemand] = []
        self.unseen: dict[str, int] = {}

    def dropped(self) -> Mapping[str, int]:
        return self.unseen

    def demand(self, demand: ViewDemand) -> None:
        self.demands.append(demand)


class DarkWatch:
    """Finds pictures black that are darker than 10."""

    raised: frozenset[Vital] = frozenset()

    def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Vital, ...]:
        black = (Vital.BLACK,) if image_bgr.mean() < 10 else ()
        self.raised = frozenset(black)
        return black


def soon(condition: Callable[[], bool]) -> None:
    ticker = threading.Event()
    for _ in range(500):
        if condition():
            return
        ticker.wait(0.01)
    pytest.fail("it did not happen within 5 s")


def leased(feed: Feed) -> Lease:
    answer = feed.take(5.0)
    assert isinstance(answer, Lease), answer
    return answer


def test_a_demand_reaches_the_source_and_whoever_exchanges_the_reference() -> None:
    told: list[str] = []
    lens = SupervisedLens()
    feed = Feed(lens, on_demand=lambda demand: told.append(demand.recipe))
    feed.open()

    feed.demand(LOCKED)

    assert lens.demands == [LOCKED]
    assert told == ["default"]
    feed.close()


@pytest.mark.parametrize(
    ("time_class", "demand", "expected"),
    [
        (TimeClass.ARRIVAL_ONLY, LOCKED, (Vital.SETTINGS,)),
        (TimeClass.HARDWARE_TRIGGERED, LOCKED, (Vital.SETTINGS,)),
        (TimeClass.RECORDED, LOCKED, ()),
        (TimeClass.ARRIVAL_ONLY, ViewDemand(recipe="default"), ()),
        (TimeClass.ARRIVAL_ONLY, ViewDemand(recipe="default", camera=CameraSettings()), ()),
    ],
)
def test_a_camera_that_cannot_be_told_its_settings_is_not_trusted_to_have_them(
    time_class: TimeClass, demand: ViewDemand, expected: tuple[Vital, ...]
) -> None:
    lens = Lens(time_class=time_class)
    feed = Feed(lens, policy="every")
    feed.open()
    feed.demand(demand)
    lens.show(0)

    with leased(feed) as lease:
        assert lease.frame.vitals == expected
    assert feed.health().raised == expected

    feed.demand(ViewDemand(recipe="other"))
    lens.show(1)
    with leased(feed) as lease:
        assert lease.frame.vitals == ()
    feed.close()


def test_the_watch_sees_every_picture_and_what_it_finds_stands_on_the_frame() -> None:
    lens = Lens()
    feed = Feed(lens, policy="every", vitals=DarkWatch())
    feed.open()
    lens.show(0, level=200)
    lens.show(1, level=3)

    with leased(feed) as lease:
        assert lease.frame.vitals == ()
    with leased(feed) as lease:
        assert lease.frame.vitals == (Vital.BLACK,)
    assert feed.health().raised == (Vital.BLACK,)
    feed.close()
    assert lens.freed == Counter({0: 1, 1: 1})


def test_a_watch_that_fails_costs_its_frame_and_gives_the_picture_back() -> None:
    class Broken(DarkWatch):
        def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Vital, ...]:
            if image_bgr[0, 0, 0] == 1:
                raise ZeroDivisionError
            return ()

    lens = Lens()
    feed = Feed(lens, policy="every", vitals=Broken())
    feed.open()
    lens.show(0, level=1)
    lens.show(1, level=2)

    with leased(feed) as lease:
        assert lease.frame.number == 1
    assert lens.freed == Counter({0: 1, 1: 1})
    feed.close()


def test_a_frame_given_back_is_taken_again_before_newer_ones_and_counted_once() -> None:
    lens = Lens()
    feed = Feed(lens, policy="latest")
    feed.open()
    lens.show(0)
    looked_at = leased(feed)
    lens.show(1)
    soon(lambda: feed.counts().frames_in == 2)

    feed.give_back(looked_at)
    feed.give_back(looked_at)
    looked_at.release()
    assert feed.counts() == FrameCounts(frames_in=2, used=0, not_triggered=0, dropped={}, waiting=2)

    numbers = []
    for _ in range(2):
        with leased(feed) as lease:
            numbers.append(lease.frame.number)
    assert numbers == [0, 1]
    assert feed.counts() == FrameCounts(frames_in=2, used=2, not_triggered=0, dropped={}, waiting=0)
    assert lens.freed == Counter({0: 1, 1: 1})
    feed.close()


def test_frames_given_back_that_nobody_wants_are_bounded_and_closed_with_the_feed() -> None:
    lens = Lens()
    feed = Feed(lens, policy="every")
    feed.open()
    for number in range(10):
        lens.show(number)
        feed.give_back(_last(feed, number))
    feed.close()

    assert feed.counts() == FrameCounts(
        frames_in=10, used=0, not_triggered=0, dropped={"overflow": 2, "closed": 8}, waiting=0
    )
    assert lens.freed == Counter(dict.fromkeys(range(10), 1))


def _last(feed: Feed, number: int) -> Lease:
    """Take until the frame of this number comes, and give the others back."""
    passed: list[Lease] = []
    while (lease := leased(feed)).frame.number != number:
        passed.append(lease)
    for other in passed:
        feed.give_back(other)
    return lease


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_every_picture_is_given_back_exactly_once_whatever_becomes_of_it(policy: Policy) -> None:
    chance = random.Random(7)
    lens = Lens()
    feed = Feed(lens, policy=policy, capacity=2)
    feed.open()
    held: list[Lease] = []
    for number in range(200):
        lens.show(number)
        if chance.random() < 0.5 and isinstance(answer := feed.take(0.02), Lease):
            held.append(answer)
        while held and chance.random() < 0.5:
            act = chance.choice((Lease.release, Lease.not_used, feed.give_back))
            act(held.pop(chance.randrange(len(held))))
    soon(lambda: feed.counts().frames_in == 200)
    feed.close()
    for lease in held:
        lease.release()
        lease.release()

    counts = feed.counts()
    assert counts.waiting == 0
    assert counts.used + counts.not_triggered + sum(counts.dropped.values()) == counts.frames_in == 200
    assert lens.freed == Counter(dict.fromkeys(range(200), 1))


def test_a_snapshot_is_a_copy_of_the_next_picture_and_changes_no_account() -> None:
    lens = Lens()
    feed = Feed(lens, policy="every")
    feed.open()
    lens.show(0, level=10)
    soon(lambda: feed.counts().frames_in == 1)
    before = feed.counts()
    seen: list[NDArray[np.uint8] | NoFrame] = []
    people = [threading.Thread(target=lambda: seen.append(feed.snapshot(5.0))) for _ in range(3)]
    for person in people:
        person.start()
    soon(lambda: feed._viewers == 3)

    lens.show(1, level=20)
    for person in people:
        person.join(5)

    assert [int(picture.mean()) for picture in seen if isinstance(picture, np.ndarray)] == [20, 20, 20]
    assert feed.counts() == dataclasses.replace(before, frames_in=2, waiting=2)
    feed.close()


def test_a_snapshot_of_a_still_line_says_that_no_picture_comes() -> None:
    feed = Feed(Lens())
    feed.open()

    assert feed.snapshot(0.05) == NoFrame(reason="no frame within 0.05 s")
    feed.close()


def test_a_snapshot_of_a_recording_shows_the_frame_that_waits() -> None:
    lens = Lens(live=False, time_class=TimeClass.RECORDED)
    lens.show(0, level=50)
    feed = Feed(lens)
    feed.open()
    soon(lambda: feed.counts().waiting == 1)

    picture = feed.snapshot(1.0)

    assert isinstance(picture, np.ndarray)
    assert int(picture.mean()) == 50
    with leased(feed) as lease:
        assert lease.frame.number == 0
    feed.close()


def test_a_still_belt_is_no_trouble_and_a_lost_camera_is() -> None:
    lens = Lens()
    feed = Feed(lens)
    feed.open()
    assert feed.health().connected
    assert feed.health().frame_age_ms is None

    lens.idle = NoFrame(reason="the cable is out")
    soon(lambda: not feed.health().connected)
    assert feed.health().trouble == "the cable is out"
    lens.show(0)
    leased(feed).release()

    health = feed.health()
    assert health.connected
    assert health.frame_age_ms is not None
    assert 0 <= health.frame_age_ms < 5000
    feed.close()
    assert not feed.health().connected


def test_what_a_camera_process_lost_is_part_of_the_accounts() -> None:
    lens = SupervisedLens()
    feed = Feed(lens, policy="latest")
    feed.open()
    for number in range(2):
        lens.show(number)
    soon(lambda: feed.counts().frames_in == 2)
    lens.unseen = {"replaced": 4, "restarted": 1}
    lens.trouble = "no frame for 3 s"

    assert feed.counts() == FrameCounts(
        frames_in=7, used=0, not_triggered=0, dropped={"replaced": 5, "restarted": 1}, waiting=1
    )
    health = feed.health()
    assert (health.connected, health.trouble, health.restarts, health.process_id) == (
        False,
        "no frame for 3 s",
        3,
        4711,
    )
    feed.close()
