"""One part, one inspection: also when the belt stops or goes back, and when parts touch."""

from __future__ import annotations

import dataclasses
import random
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture.feed import Feed
from agent.capture.frame import Ended, Frame, NoFrame, SourceInfo, TimeClass, Vital
from agent.line import gate, strip
from agent.line.gate import Gate, Line
from agent.line.part_gate import PartGate
from agent.line.settings import PartGateSettings
from agent.line.strip import EmptyBelt, Run
from agent.line.trigger import LineCount, RecipeRequest, Trigger
from tests.support.station import CLOCK, ScriptedLine
from wire.mint import Mint

LENGTH = 640
LINE = Line(at_px=320, length_px=LENGTH, min_pitch_px=20, column_px=2)


def runs_of(parts: list[tuple[float, float]]) -> list[Run]:
    """What a gate sees of parts from rear to front: cut off by the picture, in columns, touching ones as one."""
    shown = [(max(0.0, rear), front) for rear, front in parts if front > 0 and rear < LENGTH]
    found: list[list[float]] = []
    for rear, front in sorted((rear // 2 * 2, min(LENGTH, -(-front // 2) * 2)) for rear, front in shown):
        if found and rear <= found[-1][1]:
            found[-1][1] = max(found[-1][1], front)
        else:
            found.append([rear, front])
    return [Run(rear_px=rear, front_px=front) for rear, front in reversed(found) if front - rear >= 4]


class Belt:
    """Parts one behind the other, each with its own place on a belt that moves as it is told."""

    def __init__(self, seed: int, *, count: int, length: float, varied: float, touching: float) -> None:
        self.rng = random.Random(seed)
        self.parts: list[tuple[float, float]] = []
        front = -10.0
        for number in range(count):
            long = length * (1 + self.rng.uniform(-varied, varied))
            self.parts.append((front - long, front))
            is_touching = number > 10 and self.rng.random() < touching
            front -= long + (0.0 if is_touching else self.rng.uniform(10, 120))
        self.end = -front + LENGTH + 50
        self.place = 0.0
        self.gate = Gate()

    def move(self, by_px: float) -> None:
        """Move the belt, and look; edges are seen to a pixel or so."""
        self.place += by_px
        shaken = [
            (rear + self.place + self.rng.uniform(-1, 1), front + self.place + self.rng.uniform(-1, 1))
            for rear, front in self.parts
        ]
        self.gate = gate.step(self.gate, runs_of(shaken), LINE)

    def run(self, *, stops: bool, back: bool) -> None:
        speed = 8.0
        while self.place < self.end:
            chance = self.rng.random()
            if stops and chance < 0.01:
                for _ in range(self.rng.randint(5, 40)):
                    self.move(0)
            elif back and chance < 0.013:
                for _ in range(self.rng.randint(3, 20)):
                    self.move(-self.rng.uniform(2, 8))
            elif chance < 0.05:
                speed = self.rng.uniform(2, 16)
            self.move(speed * self.rng.uniform(0.9, 1.1))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("length", "varied", "touching", "stops", "back"),
    [
        (60, 0.0, 0.0, False, False),
        (60, 0.1, 0.0, True, True),
        (60, 0.5, 0.0, True, True),
        (15, 0.0, 0.0, True, True),
        (300, 0.0, 0.0, True, True),
        (60, 0.0, 0.2, True, False),
        (60, 0.0, 0.2, True, True),
    ],
)
def test_each_part_is_counted_once_through_stops_returns_changes_of_speed_and_touching(
    seed: int, length: float, varied: float, touching: float, stops: bool, back: bool
) -> None:
    belt = Belt(seed, count=60, length=length, varied=varied, touching=touching)
    belt.run(stops=stops, back=back)
    assert belt.gate.passed == 60


def single(rear: float, front: float) -> Belt:
    belt = Belt(1, count=1, length=60, varied=0, touching=0)
    belt.parts = [(rear, front)]
    return belt


def test_a_part_that_trembles_on_the_line_is_one_part() -> None:
    belt = single(-70, -10)
    while belt.place < 331:
        belt.move(7)
    for step in range(200):
        belt.move(3 if step % 2 else -3)
    assert belt.gate.passed == 1


def test_a_part_that_goes_back_out_of_the_picture_and_comes_again_is_one_part() -> None:
    belt = single(-70, -10)
    for by_px in (7, -7, 7, -7, 7):
        for _ in range(60):
            belt.move(by_px)
    assert belt.gate.passed == 1


def test_a_part_that_comes_back_from_beyond_is_one_part() -> None:
    belt = single(-70, -10)
    for by_px, frames in ((7, 120), (-7, 80), (7, 80)):
        for _ in range(frames):
            belt.move(by_px)
    assert belt.gate.passed == 1


@pytest.mark.parametrize("by_px", [6, 20, 26])
def test_parts_that_look_alike_at_equal_distances_do_not_hide_which_way_the_belt_moves(by_px: float) -> None:
    belt = single(0, 0)
    belt.parts = [(-70.0 - 80 * number, -10.0 - 80 * number) for number in range(30)]
    for _ in range(int(12 / by_px) + 1):
        belt.move(4)
    while belt.place < 80 * 30 + LENGTH:
        belt.move(by_px)
        if belt.rng.random() < 0.1:
            belt.move(0)
    assert belt.gate.passed == 30


def test_what_lay_beyond_the_line_before_the_first_look_is_not_counted() -> None:
    belt = single(400, 460)
    for _ in range(60):
        belt.move(7)
    assert belt.gate.passed == 0


def test_a_part_with_a_hole_is_one_part_when_the_pitch_says_so() -> None:
    wide = dataclasses.replace(LINE, min_pitch_px=100)
    known = Gate()
    for place in range(-10, 720, 7):
        runs = runs_of([(place - 20, place), (place - 80, place - 60)])
        known = gate.step(known, runs, wide)
    assert known.passed == 1


# In pictures


NOISE = np.random.default_rng(7).normal(0, 4, (11, 48, LENGTH, 3)).round().astype(np.int16)


def picture(parts: list[tuple[float, float]], rng: np.random.Generator, light: float = 0.0) -> NDArray[np.uint8]:
    """A noisy belt, 48 x 640, with bright parts from rear to front."""
    image = NOISE[rng.integers(len(NOISE))] + np.int16(90 + light)
    for rear, front in parts:
        image[10:40, max(0, round(rear)) : max(0, round(front))] += 80
    return image.astype(np.uint8)


SETTINGS = PartGateSettings(view="top")


def runs_in(belt: EmptyBelt, image: NDArray[np.uint8], moved_px: float = 0.0) -> list[Run] | None:
    return belt.runs(strip.strip_of(image, SETTINGS), moved_px)


@pytest.mark.parametrize("direction", ["right", "left", "down", "up"])
def test_runs_are_measured_in_the_direction_of_the_parts(direction: Any) -> None:
    settings = dataclasses.replace(SETTINGS, direction=direction)
    rng = np.random.default_rng(1)
    turn = {
        "right": lambda image: image,
        "left": lambda image: image[:, ::-1],
        "down": lambda image: image.transpose(1, 0, 2),
        "up": lambda image: image[:, ::-1].transpose(1, 0, 2),
    }[direction]
    belt = EmptyBelt(settings)
    for _ in range(strip.LEARN_FRAMES):
        assert belt.runs(strip.strip_of(turn(picture([], rng)), settings), 0.0) is None
    runs = belt.runs(strip.strip_of(turn(picture([(100, 160)], rng)), settings), 0.0)
    assert runs is not None
    (run,) = runs
    assert abs(run.rear_px - 100) <= 4
    assert abs(run.front_px - 160) <= 4


def test_the_empty_belt_is_learnt_while_parts_pass_and_follows_the_light() -> None:
    rng = np.random.default_rng(2)
    belt = EmptyBelt(SETTINGS)
    for number in range(strip.LEARN_FRAMES):
        assert runs_in(belt, picture([(number * 30 - 60, number * 30)], rng)) is None
    for number in range(200):  # the light grows by 50 levels, more than the threshold
        assert runs_in(belt, picture([], rng, light=number / 4)) == []
    runs = runs_in(belt, picture([(200, 260)], rng, light=50))
    assert runs is not None
    assert len(runs) == 1


def test_a_part_that_stands_still_for_long_stays_a_part_and_dirt_beside_moving_parts_does_not() -> None:
    rng = np.random.default_rng(3)
    belt = EmptyBelt(SETTINGS)
    for _ in range(strip.LEARN_FRAMES):
        runs_in(belt, picture([], rng))
    for _ in range(400):
        runs = runs_in(belt, picture([(300, 360)], rng), moved_px=0.0)
    assert runs is not None
    assert len(runs) == 1
    for _ in range(200):
        runs = runs_in(belt, picture([(300, 360)], rng), moved_px=10.0)
    assert runs == []


def test_light_that_is_switched_is_learnt_anew() -> None:
    rng = np.random.default_rng(4)
    belt = EmptyBelt(SETTINGS)
    for _ in range(strip.LEARN_FRAMES):
        runs_in(belt, picture([], rng))
    for _ in range(300):
        last = runs_in(belt, picture([], rng, light=100))
    assert last == []


class BeltCamera:
    """A live camera over a belt: 25 empty frames, then parts that move by `speed_px` a frame and stop at times."""

    def __init__(self, count: int, speed_px: float = 12.0) -> None:
        self.rng = np.random.default_rng(5)
        self.parts = [(-70.0 - 130 * number, -10.0 - 130 * number) for number in range(count)]
        self.place = 0.0
        self.speed_px = speed_px
        self.number = 0
        self.end = 130 * count + LENGTH
        self.vitals: tuple[Vital, ...] = ()

    def open(self) -> SourceInfo:
        return SourceInfo(camera="cam", time_class=TimeClass.ARRIVAL_ONLY, live=True)

    def read(self, timeout_s: float) -> Frame | NoFrame | Ended:
        if self.place >= self.end:
            return Ended()
        if self.number > strip.LEARN_FRAMES and self.number % 40 > 10:
            self.place += self.speed_px
        shown = [(rear + self.place, front + self.place) for rear, front in self.parts]
        image = picture([part for part in shown if part[1] > 0 and part[0] < LENGTH], self.rng)
        self.number += 1
        time.sleep(0.002)
        return Frame(
            camera="cam",
            number=self.number,
            exposed_utc=datetime.now(UTC),
            exposed_ns=CLOCK.monotonic_ns(),
            image_bgr=image,
            vitals=self.vitals,
        )

    def close(self) -> None: ...


def test_each_part_of_a_live_belt_is_a_trigger_and_its_frame_is_the_next_one_taken() -> None:
    feed = Feed(BeltCamera(8), policy="every", capacity=64)
    feed.open()
    line = PartGate(feed, SETTINGS, CLOCK, Mint())
    triggers: list[Trigger] = []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        event = line.take(0.2)
        if event is None:
            continue
        assert isinstance(event, Trigger)
        assert event.seen_by == "top"
        taken = feed.take(0.0)
        if isinstance(taken, Ended):
            break
        assert not isinstance(taken, NoFrame)
        assert taken.frame.exposed_ns == event.at_ns
        columns = taken.frame.image_bgr[25, :, 0] > 130
        assert columns[300:320].any(), "the frame does not show the part at the line"
        taken.release()
        triggers.append(event)
    feed.close()
    assert [event.sequence for event in triggers] == list(range(1, 9))
    assert len({event.id for event in triggers}) == 8
    counts = feed.counts()
    assert counts.used == 8
    assert counts.frames_in == counts.used + counts.not_triggered + sum(counts.dropped.values())


def test_pictures_on_which_no_belt_can_be_seen_are_not_looked_at() -> None:
    camera = BeltCamera(3)
    camera.vitals = (Vital.SATURATED,)
    feed = Feed(camera, policy="every", capacity=64)
    feed.open()
    line = PartGate(feed, SETTINGS, CLOCK, Mint())
    assert line.take(0.3) is None
    assert line._belt.is_learning
    feed.close()


def test_of_the_counters_line_only_counts_and_recipes_are_passed_on() -> None:
    asked = RecipeRequest(number=2, source="plc")
    stray = Trigger(id="r-1", run="r", sequence=1, at_ns=0, at_utc=datetime.now(UTC))
    counter = ScriptedLine(stray, LineCount(run="r", count=7), asked)
    camera = BeltCamera(0)
    camera.vitals = (Vital.BLACK,)
    feed = Feed(camera, policy="every", capacity=64)
    feed.open()
    line = PartGate(feed, SETTINGS, CLOCK, Mint(), counter=counter)
    heard = [line.take(0.01) for _ in range(4)]
    feed.close()
    assert [event for event in heard if event is not None and not isinstance(event, Trigger)] == [
        LineCount(run="r", count=7),
        asked,
    ]
    line.answer_recipe(asked, "")
    assert counter.recipes_answered == [(asked, "")]
